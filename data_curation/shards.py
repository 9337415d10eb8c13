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

import zlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_curation.files import sha256_file
from data_curation.settings import InputError
from data_curation.shard_cache import ShardCache
from data_curation.shard_index import BLOCK_BYTES, Shard, read_index

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


class Shards:
    """A folder of shards, memory-mapped. Documents are numbered 0, 1, ... through all shards.

    `folder` is a path or an s3 URI, whose token files are copied into the folder `copies` as they are needed, `limit`
    bytes of them at a time. Holds 18 bytes a document.
    """

    def __init__(self, folder: Path | str, copies: Path | None = None, limit: int = 1 << 62) -> None:
        self.folder = folder
        self.index, self.digest = read_index(str(folder))
        self._files = ShardCache(str(folder), copies, limit, self._forget)
        # Small files are read once; a cache of their own keeps them from pushing token files out.
        self._small = ShardCache(str(folder), copies)
        kinds = ("documents", "checksums")
        self._small.announce(
            [(f"{one.name}.{kind}.npy", 0, one.sha256[kind]) for one in self.index.shards for kind in kinds]
        )
        columns = [_columns(self._records(shard), shard, self.folder) for shard in self.index.shards]
        self._checksums = [self._load(shard, "checksums") for shard in self.index.shards]
        self._small.close()
        self.lengths = np.concatenate([np.zeros(0, np.int64), *(lengths for lengths, _ in columns)])
        """Tokens of each document, separator included."""
        self.sources = np.concatenate([np.zeros(0, np.uint16), *(sources for _, sources in columns)])
        """Number of each document's source in the index."""
        self._ends = np.cumsum(self.lengths)
        self._first = np.cumsum([0, *(len(lengths) for lengths, _ in columns)])
        self._base = np.cumsum([0, *(shard.tokens for shard in self.index.shards)])
        self._checked = [np.zeros(len(some), bool) for some in self._checksums]
        self._open: OrderedDict[int, Tokens] = OrderedDict()
        self._described: tuple[int, Records] = (-1, np.zeros(0, RECORD))

    def __len__(self) -> int:
        """Documents of all shards."""
        return len(self.lengths)

    def tokens(self, document: int, start: int = 0, stop: int | None = None) -> Tokens:
        """Tokens `start` to `stop` of a document, as a read-only view; checks blocks that nobody has used yet."""
        number = int(np.searchsorted(self._first, document, "right")) - 1
        length = int(self.lengths[document])
        begin = int(self._ends[document]) - length - int(self._base[number])
        stop = length if stop is None else stop
        if not 0 <= start <= stop <= length:
            raise IndexError(f"tokens {start} to {stop} of a document with {length}")
        mapped = self._map(number)
        self._check(number, mapped, begin + start, begin + stop)
        return mapped[begin + start : begin + stop]

    def document(self, document: int) -> Document:
        """One whole document."""
        number, index = int(self.shard_of(np.array([document]))[0]), self.index
        if self._described[0] != number:
            self._described = number, self._records(index.shards[number])
        record = self._described[1][document - int(self._first[number])]
        source, language = index.sources[record["source"]], index.languages[record["language"]]
        return Document(record["id"].decode(), source, language, int(record["bytes"]), self.tokens(document))

    def find(self, ids: set[str]) -> dict[str, int]:
        """The number of each of these documents that is here, by its id; reads all records once."""
        wanted, found = np.array(sorted(ids), "S32"), dict[str, int]()
        for number, shard in enumerate(self.index.shards):
            records = self._records(shard)
            for place in np.flatnonzero(np.isin(records["id"], wanted)).tolist():
                found[records["id"][place].decode()] = int(self._first[number]) + place
        return found

    def shard_of(self, documents: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of the shard that holds each document."""
        return np.searchsorted(self._first, documents, "right") - 1

    @property
    def remote(self) -> bool:
        """Whether token files are fetched from elsewhere."""
        return self._files.remote

    def announce(self, documents: NDArray[np.int64]) -> None:
        """Begin to fetch the shards of documents that are needed soon, if they are not on this machine."""
        if self.remote:
            self._files.announce([self._token_file(number) for number in np.unique(self.shard_of(documents)).tolist()])

    def check_tokenizer(self, folder: Path) -> None:
        """Raise InputError unless the tokenizer in `folder` is the one that made these shards."""
        if sha256_file(str(folder / "tokenizer.json")) != self.index.tokenizer:
            raise InputError(f"{folder}: not the tokenizer that made {self.folder}; run the stage `shard` again")

    def close(self) -> None:
        """End what fetches files; only needed where they are not on this machine."""
        self._files.close()

    def _map(self, number: int) -> Tokens:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        name, wanted, sha256 = self._token_file(number)
        path = self._files.path(name, wanted, sha256)
        size = path.stat().st_size if path.is_file() else 0
        if size != wanted:
            raise InputError(f"{path}: {size} bytes, the index says {wanted}; make it again")
        mapped: Tokens = np.memmap(path, self.index.dtype, "r")
        self._open[number] = mapped
        if len(self._open) > OPEN:
            self._open.popitem(last=False)
        return mapped

    def _token_file(self, number: int) -> tuple[str, int, str]:
        """Name, bytes and sha256."""
        shard = self.index.shards[number]
        return f"{shard.name}.tokens", shard.tokens * self.index.dtype.itemsize, shard.sha256["tokens"]

    def _forget(self, name: str) -> None:
        """A copy was removed: its mapping would keep the disk space."""
        number = next(number for number, shard in enumerate(self.index.shards) if name == f"{shard.name}.tokens")
        self._open.pop(number, None)

    def _check(self, number: int, mapped: Tokens, begin: int, stop: int) -> None:
        checked, checksums = self._checked[number], self._checksums[number]
        per_block = BLOCK_BYTES // mapped.itemsize
        for block in range(begin // per_block, -(-stop // per_block)):
            if not checked[block]:
                found = zlib.crc32(mapped[block * per_block : (block + 1) * per_block].tobytes())
                if found != int(checksums[block]):
                    path = f"{self.folder}/{self.index.shards[number].name}.tokens"
                    raise InputError(
                        f"{path}: block {block} (of {BLOCK_BYTES} bytes) is damaged; make the shards again"
                    )
                checked[block] = True

    def _records(self, shard: Shard) -> Records:
        records = self._load(shard, "documents")
        if records.dtype != RECORD:
            raise InputError(f"{self.folder}/{shard.name}.documents.npy: not in this format; make the shards again")
        return records

    def _load(self, shard: Shard, kind: str) -> Tokens:
        """A small file of a shard, read whole and held against its hash before numpy looks into it."""
        path = self._small.path(f"{shard.name}.{kind}.npy", 0, shard.sha256[kind])
        raw = path.read_bytes() if path.is_file() else b""
        if sha256(raw).hexdigest() != shard.sha256[kind]:
            raise InputError(f"{path}: missing or damaged ({len(raw)} bytes); make the shards again")
        return np.load(BytesIO(raw), allow_pickle=False)


def heldout_documents(folder: Path) -> Iterator[Document]:
    """Every document of a folder of shards, in order; made for the part `heldout`."""
    shards = Shards(folder)
    for number in range(len(shards)):
        yield shards.document(number)


def _columns(records: Records, shard: Shard, folder: Path | str) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
    """Lengths and sources of a shard's documents; their offsets follow from the lengths."""
    lengths = records["length"].astype(np.int64)
    fits = len(records) == shard.documents and int(lengths.sum()) == shard.tokens
    if not fits or not np.array_equal(records["offset"], np.cumsum(lengths) - lengths):
        raise InputError(f"{folder}/{shard.name}.documents.npy: does not fit the index; make the shards again")
    return lengths, records["source"].astype(np.uint16)
