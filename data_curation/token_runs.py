"""One file of documents to runs of tokens sorted by key: what the stage `shard` merges into shards."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from data_curation.counts import Counts
from data_curation.documents import read_rows
from data_curation.encoding import CHECKED, Encoder
from data_curation.place import PieceWriter
from data_curation.shard_index import Index
from data_curation.shard_writer import write_index, write_shard
from data_curation.shards import Document, Shards

PART = "work/runs"
RUN_TOKENS = 1 << 26  # so many are sorted in memory at a time
KEYS = np.dtype([("key", "<u8"), ("held", "<u8")])


def key_of(document: str, seed: int) -> int:
    """Where a document stands in the global order: a 64-bit hash of its id and the seed."""
    return xxhash.xxh3_64_intdigest(document, seed)


def held_of(document: str) -> int:
    """Who is held out first: a 64-bit hash of the id alone, so that no seed moves a document into training."""
    return xxhash.xxh3_64_intdigest("heldout " + document)


@dataclass(frozen=True)
class Runs:
    """The runs of one input file, opened: `keys` has one record for each document of `shards`."""

    shards: Shards
    keys: NDArray[Any]

    @classmethod
    def open(cls, folder: Path) -> "Runs":
        """Open what `Tokenise` wrote."""
        shards = Shards(folder)
        return cls(shards, np.fromfile(folder / "keys", KEYS))


@dataclass(frozen=True)
class Tokenise:
    """Task `rank` reads input file `rank` and writes part work/runs, folder RANK: shards sorted by key, and `keys`."""

    uris: list[str]
    tokenizer: Path
    seed: int

    def __call__(self, rank: int, piece: PieceWriter) -> None:
        """Run one task; documents without text are counted and dropped."""
        uri, counts, open_file = self.uris[rank], piece.piece.counts, partial(_open, piece, rank)
        encoder = self._encoder(uri, piece)
        index = Index(encoder.vocabulary, encoder.separator, "", (), ())
        keys: list[NDArray[Any]] = []
        shards = []
        for run in self._runs(_documents(uri, encoder, counts)):
            # Names are appended only, so the numbers in earlier runs stay right.
            index = replace(
                index,
                sources=_with(index.sources, [document.source for document in run]),
                languages=_with(index.languages, [document.language for document in run]),
            )
            shards.append((write_shard(open_file, f"{len(shards):05d}", index, run)[0], {}))
            keys.append(np.array([(key_of(some.id, self.seed), held_of(some.id)) for some in run], KEYS))
        with open_file("keys") as out:
            out.write(np.concatenate([np.zeros(0, KEYS), *keys]).tobytes())
        write_index(open_file, index, shards)

    def _encoder(self, uri: str, piece: PieceWriter) -> Encoder:
        """The fast encoder, if its ids equal Hugging Face's on the sample; every shard has documents of this sample."""
        encoder = _loaded(self.tokenizer, True)
        rows = read_rows(uri, ["id", "text"])
        sample = [row["text"] for row in rows if row["text"] and key_of(row["id"] or "", self.seed) % CHECKED == 0]
        same = encoder.agrees(sample)
        piece.piece.note = {"checked": len(sample) if encoder.fast else 0, "equal": same}
        return encoder if same else _loaded(self.tokenizer, False)

    def _runs(self, documents: Iterator[Document]) -> Iterator[list[Document]]:
        run: list[Document] = []
        size = 0
        for document in documents:
            run.append(document)
            size += len(document.tokens)
            if size >= RUN_TOKENS:
                yield sorted(run, key=self._place)
                run, size = [], 0
        if run:
            yield sorted(run, key=self._place)

    def _place(self, document: Document) -> tuple[int, str]:
        return key_of(document.id, self.seed), document.id


@lru_cache(2)
def _loaded(folder: Path, fast: bool) -> Encoder:
    return Encoder(folder, fast)  # once a process: loading takes as long as a small file


def _documents(uri: str, encoder: Encoder, counts: Counts) -> Iterator[Document]:
    separator = np.array([encoder.separator], np.uint32)
    taken = {"documents": 0, "bytes": 0}
    empty = 0
    for rows in _batches(uri):
        taken["documents"] += len(rows)
        full = [row for row in rows if row["text"]]
        empty += len(rows) - len(full)
        for row, ids in zip(full, encoder.encode([row["text"] for row in full]), strict=True):
            size = len(row["text"].encode())
            taken["bytes"] += size
            tokens = np.concatenate([ids, separator])
            yield Document(row["id"] or "", row["source"] or "", row["language"] or "", size, tokens)
    counts.taken = taken
    if empty:
        counts.funnel.append({"step": "shard", "reason": "no text", "documents": empty, "bytes": 0})


def _batches(uri: str) -> Iterator[list[dict[str, Any]]]:
    rows = read_rows(uri, ["id", "text", "source", "language"])
    while batch := list(islice(rows, 256)):
        yield batch


def _open(piece: PieceWriter, rank: int, path: str) -> Any:
    return piece.write(PART, f"{rank:05d}/{path}")


def _with(names: tuple[str, ...], more: list[str]) -> tuple[str, ...]:
    return names + tuple(sorted(set(more) - set(names)))
