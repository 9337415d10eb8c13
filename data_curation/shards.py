"""THE SHARD FORMAT: token files with an index of documents, and their checking reader.

A folder holds, little-endian throughout:

    index.json              {"format": 1, "dtype", "vocabulary", "separator", "tokenizer", "block_bytes", "sources",
                            "languages", "tokens", "documents", "lengths",
                            "shards": [{"name", "tokens", "documents", "sha256"}]}
    00000.tokens            token ids of all documents, one after the other, each closed by the separator
    00000.documents.npy     one record a document: offset and length in tokens, UTF-8 bytes of its text, id, and numbers
                            into "sources" and "languages"
    00000.checksums.npy     CRC-32 of each block of `block_bytes` of the token file, checked at a block's first use

The order of the documents is random once and for all; every sequence length is cut from the same files. The writer is
shard_writer.py.
"""

import json
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_curation.files import sha256_file
from data_curation.settings import InputError

FORMAT = 1
BLOCK_BYTES = 1 << 16  # small, since a random document pays for whole blocks at their first use
OPEN = 256  # token files mapped at a time
RECORD = np.dtype(
    [("offset", "<u8"), ("length", "<u8"), ("bytes", "<u8"), ("id", "S32"), ("source", "<u2"), ("language", "<u2")]
)

Records = NDArray[Any]
Tokens = NDArray[Any]


@dataclass(frozen=True)
class Document:
    """One document in shards: `tokens` ends with the separator, `bytes` counts the UTF-8 bytes of its text."""

    id: str
    source: str
    language: str
    bytes: int
    tokens: Tokens


@dataclass(frozen=True)
class Shard:
    """What the index says of one shard; `sha256` is that of its files: {"tokens", "documents", "checksums"}."""

    name: str
    tokens: int
    documents: int
    sha256: dict[str, str]


@dataclass(frozen=True)
class Index:
    """What the whole folder holds."""

    vocabulary: int
    """Token ids lie below this."""
    separator: int
    """The token that closes every document."""
    tokenizer: str
    """Hex sha256 of the tokenizer.json that made the tokens."""
    sources: tuple[str, ...]
    languages: tuple[str, ...]
    shards: tuple[Shard, ...] = ()
    lengths: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    """Histogram by source: {"documents": [...], "tokens": [...]} by power of two of the length in tokens."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Two bytes a token where the vocabulary allows."""
        return np.dtype("<u2" if self.vocabulary <= 1 << 16 else "<u4")

    @property
    def tokens(self) -> int:
        """Tokens of all shards."""
        return sum(shard.tokens for shard in self.shards)

    @property
    def documents(self) -> int:
        """Documents of all shards."""
        return sum(shard.documents for shard in self.shards)

    def to_json(self) -> dict[str, Any]:
        """As it lies in index.json."""
        return {
            "format": FORMAT,
            "dtype": "uint16" if self.dtype.itemsize == 2 else "uint32",
            "block_bytes": BLOCK_BYTES,
            "tokens": self.tokens,
            "documents": self.documents,
            **asdict(self),
        }


class Shards:
    """A local folder of shards, memory-mapped. Documents are numbered 0, 1, ... through all shards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index, self.digest = _read_index(folder)
        records = [_records(folder, shard) for shard in self.index.shards]
        self._checksums = [_load(folder, shard, "checksums") for shard in self.index.shards]
        self.records: Records = np.concatenate([np.zeros(0, RECORD), *records])
        """Of all documents; `offset` counts within the shard."""
        self.lengths: NDArray[np.int64] = self.records["length"].astype(np.int64)
        """Tokens of each document, separator included."""
        ends = np.cumsum([0, *(len(some) for some in records)])
        self._first: NDArray[np.int64] = ends.astype(np.int64)
        self._checked = [np.zeros(len(some), bool) for some in self._checksums]
        self._open: OrderedDict[int, Tokens] = OrderedDict()

    def tokens(self, document: int, start: int = 0, stop: int | None = None) -> Tokens:
        """Tokens `start` to `stop` of a document, as a read-only view; checks blocks that nobody has used yet."""
        number = int(np.searchsorted(self._first, document, "right")) - 1
        record = self.records[document]
        begin, length = int(record["offset"]), int(record["length"])
        stop = length if stop is None else stop
        if not 0 <= start <= stop <= length:
            raise IndexError(f"tokens {start} to {stop} of a document with {length}")
        mapped = self._map(number)
        self._check(number, mapped, begin + start, begin + stop)
        return mapped[begin + start : begin + stop]

    def document(self, document: int) -> Document:
        """One whole document."""
        record, index = self.records[document], self.index
        source, language = index.sources[record["source"]], index.languages[record["language"]]
        return Document(record["id"].decode(), source, language, int(record["bytes"]), self.tokens(document))

    def check_tokenizer(self, folder: Path) -> None:
        """Raise InputError unless the tokenizer in `folder` is the one that made these shards."""
        if sha256_file(str(folder / "tokenizer.json")) != self.index.tokenizer:
            raise InputError(f"{folder}: not the tokenizer that made {self.folder}; run the stage `shard` again")

    def _map(self, number: int) -> Tokens:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        shard, dtype = self.index.shards[number], self.index.dtype
        path = self.folder / f"{shard.name}.tokens"
        size = path.stat().st_size if path.is_file() else 0
        if size != shard.tokens * dtype.itemsize:
            raise InputError(f"{path}: {size} bytes, the index says {shard.tokens * dtype.itemsize}; make it again")
        mapped: Tokens = np.memmap(path, dtype, "r")
        self._open[number] = mapped
        if len(self._open) > OPEN:
            self._open.popitem(last=False)
        return mapped

    def _check(self, number: int, mapped: Tokens, begin: int, stop: int) -> None:
        checked, checksums = self._checked[number], self._checksums[number]
        per_block = BLOCK_BYTES // mapped.itemsize
        for block in range(begin // per_block, -(-stop // per_block)):
            if not checked[block]:
                found = zlib.crc32(mapped[block * per_block : (block + 1) * per_block].tobytes())
                if found != int(checksums[block]):
                    path = self.folder / f"{self.index.shards[number].name}.tokens"
                    raise InputError(
                        f"{path}: block {block} (of {BLOCK_BYTES} bytes) is damaged; make the shards again"
                    )
                checked[block] = True


def heldout_documents(folder: Path) -> Iterator[Document]:
    """Every document of a folder of shards, in order; made for the part `heldout`."""
    shards = Shards(folder)
    for number in range(len(shards.records)):
        yield shards.document(number)


def _read_index(folder: Path) -> tuple[Index, str]:
    path = folder / "index.json"
    if not path.is_file():
        raise InputError(f"{path}: missing; this is no folder of shards")
    raw = path.read_bytes()
    try:
        data = json.loads(raw)
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}); make the shards again") from error
    if data.get("format") != FORMAT:
        raise InputError(f"{path}: format {data.get('format')!r}, this release reads {FORMAT}; make the shards again")
    index = Index(
        vocabulary=data["vocabulary"],
        separator=data["separator"],
        tokenizer=data["tokenizer"],
        sources=tuple(data["sources"]),
        languages=tuple(data["languages"]),
        shards=tuple(Shard(**shard) for shard in data["shards"]),
        lengths=data["lengths"],
    )
    return index, sha256(raw).hexdigest()


def _records(folder: Path, shard: Shard) -> Records:
    records = _load(folder, shard, "documents")
    if records.dtype != RECORD or len(records) != shard.documents or int(records["length"].sum()) != shard.tokens:
        raise InputError(f"{folder}/{shard.name}.documents.npy: does not fit the index; make the shards again")
    return records


def _load(folder: Path, shard: Shard, kind: str) -> Tokens:
    """A small file of a shard, read whole and held against its hash before numpy looks into it."""
    path = folder / f"{shard.name}.{kind}.npy"
    raw = path.read_bytes() if path.is_file() else b""
    if sha256(raw).hexdigest() != shard.sha256[kind]:
        raise InputError(f"{path}: missing or damaged ({len(raw)} bytes); make the shards again")
    return np.load(BytesIO(raw), allow_pickle=False)
