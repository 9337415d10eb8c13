"""One file of documents to runs of tokens sorted by key: what the stage `shard` merges into shards."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import xxhash
from numpy.typing import NDArray

from data_curation.counts import Counts
from data_curation.documents import parquet_file
from data_curation.encoding import Encoder
from data_curation.files import filesystem
from data_curation.place import Piece, PieceWriter
from data_curation.settings import InputError
from data_curation.shard_index import Index
from data_curation.shards import RECORD, Records, Tokens

pc: Any = pyarrow.compute  # its functions are made at run time, so no type checker knows them
PART = "work/runs"
RUN_TOKENS = 1 << 26  # so many are sorted in memory at a time
CHECKED = 256  # one document in so many is encoded by Hugging Face too: it is 20 times slower
FIRST = 16  # of a file, which may be small, are all compared
ROWS = 1000  # of one call of the encoder

Keys = NDArray[np.uint64]


def key_of(document: str, seed: int) -> int:
    """Where a document stands in the global order: a 64-bit hash of its id and the seed."""
    return xxhash.xxh3_64_intdigest(document, seed)


def held_of(document: str) -> int:
    """Who is held out first: a 64-bit hash of the id alone, so that no seed moves a document into training."""
    return xxhash.xxh3_64_intdigest("heldout " + document)


@dataclass(frozen=True)
class Run:
    """Documents sorted by key, as four files without headers; all are read in slices, so a run takes no memory."""

    folder: Path
    number: int
    dtype: np.dtype[Any]

    def column(self, name: str) -> Keys:
        """`keys` or `held` of all documents, memory-mapped."""
        path = self.folder / f"{self.number:05d}.{name}"
        return np.memmap(path, "<u8", "r") if path.stat().st_size else np.zeros(0, "<u8")

    def records(self, first: int = 0, last: int | None = None) -> Records:
        """Records of documents `first` to `last`; their numbers of sources and languages are those of the file."""
        count = -1 if last is None else last - first
        return np.fromfile(self.folder / f"{self.number:05d}.records", RECORD, count, offset=first * RECORD.itemsize)

    def tokens(self, offset: int, size: int) -> Tokens:
        """Tokens from an offset on."""
        path = self.folder / f"{self.number:05d}.tokens"
        return np.fromfile(path, self.dtype, size, offset=offset * self.dtype.itemsize)


@dataclass(frozen=True)
class RunFile:
    """All runs of one input file; `sources` and `languages` name the numbers in their records."""

    runs: tuple[Run, ...]
    vocabulary: int
    separator: int
    sources: tuple[str, ...]
    languages: tuple[str, ...]

    @classmethod
    def open(cls, folder: Path, piece: Piece) -> "RunFile":
        """What `Tokenise` wrote into a folder and into its piece's note."""
        note = piece.note
        index = Index(note["vocabulary"], note["separator"], "", tuple(note["sources"]), tuple(note["languages"]))
        runs = tuple(Run(folder, number, index.dtype) for number in range(note["runs"]))
        return cls(runs, index.vocabulary, index.separator, index.sources, index.languages)


class _Differs(Exception):  # noqa: N818 - not a failure: the file is encoded by the other encoder
    """The fast encoder gave other ids than Hugging Face."""


@dataclass
class _Names:
    """Numbers of names in the order of their coming."""

    numbers: dict[str, int] = field(default_factory=dict[str, int])

    def of(self, column: pa.Array) -> NDArray[np.int64]:
        """The number of each row's name."""
        coded = column.fill_null("").dictionary_encode()
        known = [self.numbers.setdefault(name, len(self.numbers)) for name in coded.dictionary.to_pylist()]
        return np.array(known, np.int64)[coded.indices.to_numpy(zero_copy_only=False)]


@dataclass(frozen=True)
class Tokenise:
    """Task `rank` reads input file `rank` and writes part work/runs, folder RANK: runs of documents sorted by key."""

    uris: list[str]
    tokenizer: Path
    seed: int

    def __call__(self, rank: int, piece: PieceWriter) -> None:
        """Run one task; documents without text are counted and dropped."""
        try:
            self._write(rank, piece, _loaded(self.tokenizer, True))
        except _Differs:
            piece.piece.files.clear()
            self._write(rank, piece, _loaded(self.tokenizer, False))
            piece.piece.note["equal"] = False

    def _write(self, rank: int, piece: PieceWriter, encoder: Encoder) -> None:
        sources, languages, counts = _Names(), _Names(), Counts(taken={"documents": 0, "bytes": 0})
        dtype = Index(encoder.vocabulary, encoder.separator, "", (), ()).dtype
        checked, empty, size, number = 0, 0, 0, 0
        blocks: list[tuple[Records, Tokens]] = []
        for rows in _batches(self.uris[rank]):
            full = rows.filter(pc.greater(pc.fill_null(pc.binary_length(rows["text"]), 0), 0))
            counts.taken["documents"] += len(rows)
            empty += len(rows) - len(full)
            if not len(full):
                continue
            texts, ids = full["text"].to_pylist(), _ids(full["id"])
            checked += self._check(encoder, texts, ids, max(0, FIRST - checked))
            records = np.zeros(len(full), RECORD)
            records["id"] = ids
            records["bytes"] = pc.binary_length(full["text"]).to_numpy(zero_copy_only=False)
            records["source"], records["language"] = sources.of(full["source"]), languages.of(full["language"])
            blocks.append(_closed(encoder, texts, records, dtype))
            counts.taken["bytes"] += int(records["bytes"].sum())
            size += len(blocks[-1][1])
            if size >= RUN_TOKENS:
                self._sorted(piece, f"{rank:05d}/{number:05d}", blocks)
                blocks, size, number = [], 0, number + 1
        self._sorted(piece, f"{rank:05d}/{number:05d}", blocks)
        if empty:
            counts.funnel.append({"step": "shard", "reason": "no text", "documents": empty, "bytes": 0})
        piece.piece.counts = counts
        piece.piece.note = {
            **{"checked": checked, "equal": True, "runs": number + 1},
            **{"vocabulary": encoder.vocabulary, "separator": encoder.separator},
            **{"sources": list(sources.numbers), "languages": list(languages.numbers)},
        }

    def _check(self, encoder: Encoder, texts: list[str], ids: list[bytes], first: int) -> int:
        """Compare a sample with Hugging Face: the first texts, and some by key, so that every shard holds some."""
        if encoder.fast is None:
            return 0
        chosen = [at < first or key_of(name.decode(), self.seed) % CHECKED == 0 for at, name in enumerate(ids)]
        sample = [text for text, taken in zip(texts, chosen, strict=True) if taken]
        if not encoder.agrees(sample):
            raise _Differs
        return len(sample)

    def _sorted(self, piece: PieceWriter, name: str, blocks: list[tuple[Records, Tokens]]) -> None:
        records = np.concatenate([np.zeros(0, RECORD), *(some for some, _ in blocks)])
        ids = [name.decode() for name in records["id"].tolist()]
        keys = np.array([key_of(document, self.seed) for document in ids], "<u8")
        held = np.array([held_of(document) for document in ids], "<u8")
        order = np.lexsort((records["id"], keys))
        spans = [
            tokens[offset : offset + length]
            for some, tokens in blocks
            for offset, length in zip(some["offset"].tolist(), some["length"].tolist(), strict=True)
        ]
        records = records[order]
        records["offset"] = np.cumsum(records["length"]) - records["length"]
        columns = {"keys": keys[order], "held": held[order], "records": records}
        columns["tokens"] = np.concatenate([spans[at] for at in order.tolist()]) if spans else np.zeros(0, "<u2")
        for kind, column in columns.items():
            with piece.write(PART, f"{name}.{kind}") as out:
                out.write(column.tobytes())


@lru_cache(2)
def _loaded(folder: Path, fast: bool) -> Encoder:
    return Encoder(folder, fast)  # once a process: loading takes as long as a small file


def _batches(uri: str) -> Iterator[pa.RecordBatch]:
    fs, path = filesystem(uri)
    with fs.open(path, "rb") as stream:
        yield from parquet_file(stream).iter_batches(ROWS, columns=["id", "text", "source", "language"])


def _ids(column: pa.Array) -> list[bytes]:
    sizes = pc.fill_null(pc.binary_length(column), 0).to_numpy(zero_copy_only=False)
    wrong = (sizes < 1) | (sizes > RECORD["id"].itemsize) | ~pc.string_is_ascii(column).to_numpy(zero_copy_only=False)
    if wrong.any():
        raise InputError(f"document id {column[int(wrong.argmax())].as_py()!r}: ids have 1 to 32 ASCII characters")
    return [name.encode() for name in column.to_pylist()]


def _closed(encoder: Encoder, texts: list[str], records: Records, dtype: np.dtype[Any]) -> tuple[Records, Tokens]:
    """Records with lengths, and the tokens of all texts, each closed by the separator."""
    ids, ends = encoder.flat(texts)
    closing = ends + np.arange(len(ends))
    tokens = np.empty(len(ids) + len(ends), dtype)
    text = np.ones(len(tokens), bool)
    text[closing] = False
    tokens[text] = ids
    tokens[closing] = encoder.separator
    records["length"] = np.diff(closing + 1, prepend=0)
    records["offset"] = closing + 1 - records["length"].astype(np.int64)
    return records, tokens
