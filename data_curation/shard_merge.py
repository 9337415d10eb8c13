"""Runs of tokens to shards: each task merges one range of keys from all runs, or the held-out documents."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from data_curation.counts import Counts
from data_curation.heldout_overlap import HeldOut
from data_curation.place import PieceWriter
from data_curation.shard_index import Index
from data_curation.shard_writer import Block, histogram, write_shard
from data_curation.shards import RECORD, Records, Tokens
from data_curation.token_runs import Run, RunFile

BLOCK_TOKENS = 1 << 20  # handed on at a time


@dataclass(frozen=True)
class Split:
    """Who goes where: held-out documents, and the range of keys of each shard."""

    limit: int
    """Documents whose held-out hash is not above are held out, unless they are too long."""
    longest: int
    """Tokens above which a document is never held out."""
    borders: tuple[tuple[int, int], ...] = ()
    """First and last key of each shard."""

    def held(self, hashes: NDArray[np.uint64], lengths: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which documents are held out."""
        return (hashes <= np.uint64(self.limit)) & (lengths <= np.uint64(self.longest))


@dataclass(frozen=True)
class Picked:
    """Documents of many runs in the order of their keys, each with the tokens that it lies in."""

    keys: NDArray[np.uint64]
    records: Records
    """`offset` counts in the document's own entry of `tokens`; sources and languages by the index of all files."""
    owners: NDArray[np.int64]
    tokens: list[Tokens]

    def document(self, at: int) -> Tokens:
        """The tokens of one document."""
        record = self.records[at]
        begin = int(record["offset"])
        return self.tokens[self.owners[at]][begin : begin + int(record["length"])]


@dataclass(frozen=True)
class Merge:
    """Task `rank` writes shard `rank` of part `shards`."""

    files: list[RunFile]
    index: Index
    split: Split
    heldout: HeldOut
    overlap: float | None

    def __call__(self, rank: int, piece: PieceWriter) -> None:
        """Merge one range of keys, without held-out documents and those that are near them."""
        low, high = self.split.borders[rank]
        picked = pick(self.files, self.index, self.split, low, high, held=False)
        blocks = self._far(unique(picked, piece.piece.counts), piece.piece.counts)
        shard, records = write_shard(partial(piece.write, "shards"), f"{rank:05d}", self.index, blocks)
        piece.piece.note = {"shard": asdict(shard), "lengths": histogram(self.index, records)}
        piece.piece.counts.made = {"documents": shard.documents, "tokens": shard.tokens, "shards": 1}

    def _far(self, blocks: Iterator[Block], counts: Counts) -> Iterator[Block]:
        """The documents that are no near-duplicates of held-out ones; the others are counted."""
        documents, size = 0, 0
        for records, tokens in blocks:
            lengths = records["length"].astype(np.int64)
            near = np.zeros(len(records), bool)
            if self.overlap is not None:
                near = self.heldout.near(tokens, lengths, self.overlap)
            documents, size = documents + int(near.sum()), size + int(records["bytes"][near].sum())
            yield (records[~near], tokens[np.repeat(~near, lengths)]) if near.any() else (records, tokens)
        if documents:
            counts.funnel.append(
                {"step": "shard", "reason": "near a held-out document", "documents": documents, "bytes": size}
            )


def pick(files: list[RunFile], index: Index, split: Split, low: int, high: int, *, held: bool) -> Picked:
    """Documents with keys from `low` to `high`, the held-out ones or the others, from all runs."""
    found: list[tuple[NDArray[np.uint64], Records]] = [(np.zeros(0, "<u8"), np.zeros(0, RECORD))]
    owners, tokens = [np.zeros(0, np.int64)], list[Tokens]()
    for file in files:
        sources = np.array([index.sources.index(name) for name in file.sources], np.int64)
        languages = np.array([index.languages.index(name) for name in file.languages], np.int64)
        for run in file.runs:
            keys, records, some = _pick(run, split, low, high, held)
            if len(keys):
                records["source"], records["language"] = sources[records["source"]], languages[records["language"]]
                found.append((keys, records))
                owners.append(np.full(len(keys), len(tokens)))
                tokens.append(some)
    keys, records = (np.concatenate(columns) for columns in zip(*found, strict=True))
    order = np.lexsort((records["id"], keys))
    return Picked(keys[order], records[order], np.concatenate(owners)[order], tokens)


def _pick(run: Run, split: Split, low: int, high: int, held: bool) -> tuple[NDArray[np.uint64], Records, Tokens]:
    """Keys, records and tokens of one run's documents; what a range of keys holds lies together in the file."""
    column = run.column("keys")
    first = int(np.searchsorted(column, np.uint64(low), "left"))
    last = int(np.searchsorted(column, np.uint64(high), "right"))
    keys, records = np.array(column[first:last]), run.records(first, last)
    mine = np.flatnonzero(split.held(run.column("held")[first:last], records["length"]) == held)
    if not len(mine):
        return keys[:0], records[:0], np.zeros(0, run.dtype)
    if held:  # few of all: one by one
        spans = [run.tokens(int(record["offset"]), int(record["length"])) for record in records[mine]]
        records = records[mine]
        records["offset"] = np.cumsum(records["length"]) - records["length"]
        return keys[mine], records, np.concatenate(spans)
    begin = int(records["offset"][0])
    tokens = run.tokens(begin, int(records["length"].sum()))
    records["offset"] -= np.uint64(begin)
    return keys[mine], records[mine], tokens


def unique(picked: Picked, counts: Counts) -> Iterator[Block]:
    """The documents in order, in blocks; of several with one id the smallest is kept, the others are counted."""
    records = picked.records
    starts = np.flatnonzero(np.concatenate([[True], records["id"][1:] != records["id"][:-1]])) if len(records) else []
    groups = np.split(np.arange(len(records)), starts[1:]) if len(starts) else []
    kept = np.array([_smallest(picked, group) if len(group) > 1 else group[0] for group in groups], np.int64)
    if len(kept) < len(records):
        lost = int(records["bytes"].sum() - records["bytes"][kept].sum())
        row = {"step": "shard", "reason": "repeated id", "documents": len(records) - len(kept), "bytes": lost}
        counts.funnel.append(row)
    number = np.cumsum(records["length"][kept].astype(np.int64)) // BLOCK_TOKENS
    for block in np.split(kept, np.flatnonzero(np.diff(number)) + 1) if len(kept) else []:
        yield records[block], np.concatenate([picked.document(at) for at in block.tolist()])


def _smallest(picked: Picked, group: NDArray[np.int64]) -> int:
    def rank(at: int) -> tuple[bytes, int, int]:
        record = picked.records[at]
        return picked.document(at).tobytes(), int(record["source"]), int(record["language"])

    return min(group.tolist(), key=rank)
