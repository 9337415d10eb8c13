"""Documents to token shards in one global random order, with a held-out split by document.

First every input file becomes runs of tokens sorted by key (token_runs.py), then every shard merges its range of keys
from all runs. A document's key is a hash of its id, so order, split and every byte are the same whatever the number of
files and workers.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.engine import run_tasks, total
from data_curation.files import sha256_file
from data_curation.place import Piece, PieceWriter, Place
from data_curation.settings import InputError, Settings
from data_curation.shard_index import Index, Shard
from data_curation.shard_writer import Histogram, histogram, write_index, write_shard
from data_curation.shards import Document
from data_curation.token_runs import PART, Runs, Tokenise

CELLS = 16  # bits of the key at whose borders shards end


class ShardConfig(Settings):
    """How documents become token shards."""

    tokens_per_shard: int = Field(default=100_000_000, gt=0)
    """Tokens of one shard file, about (two or four bytes each); documents are never cut."""
    heldout_fraction: float = Field(default=0.005, gt=0, lt=1)
    """Share of the documents that is held out, chosen by a hash of the document id alone: the same for every seed."""
    heldout_tokens: int = Field(default=2_000_000, gt=0)
    """At most so many tokens are held out, and no document longer than that; the rest stays in training."""
    seed: int = 0
    """Shuffles the documents."""


def shard(config: ShardConfig, documents: list[Artifact], tokenizer: Artifact, place: Place) -> Counts:
    """Publish parts `shards` and `heldout` in THE SHARD FORMAT (shards.py)."""
    finished = place.done("index")
    if finished is not None:
        if all(place.done(f"shard-{rank:05d}") for rank in range(finished.note["shards"])):
            _show(finished.note["lengths"], place)
            return finished.counts
        place.drop(finished)  # a shard was damaged since, so the runs are needed once more
    folder = tokenizer.folder("tokenizer", place.scratch)
    uris = [uri for artifact in documents for uri in artifact.uris("documents")]
    runs = run_tasks(place, len(uris), Tokenise(uris, folder, config.seed), prefix="tokens-")
    folders = [place.folder(run, PART) / f"{rank:05d}" for rank, run in enumerate(runs)]
    opened = [Runs.open(folder) for folder in folders]
    split = plan(config, opened)
    index = _index(opened, sha256_file(str(folder / "tokenizer.json")))
    merged = run_tasks(place, len(split.borders), Merge(folders, index, split), prefix="shard-")
    counts = total([*runs, *merged])
    _say_encoder(counts, runs)
    with place.piece("index") as piece:
        lengths = _publish(index, merged, piece)
        piece.piece.counts, piece.piece.note = counts, {"shards": len(merged), "lengths": lengths}
    _show(lengths, place)
    for run in runs:
        place.drop(run)
    return counts


@dataclass(frozen=True)
class Split:
    """Who goes where: held-out documents, and the range of keys of each shard."""

    limit: int
    """Documents whose held-out hash is not above are held out, unless they are too long."""
    longest: int
    """Tokens above which a document is never held out."""
    borders: tuple[tuple[str, int, int], ...]
    """(part, first key, key after the last one) of each shard; the last entry is the held-out split."""

    def held(self, hashes: NDArray[np.uint64], lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which documents are held out."""
        return (hashes <= np.uint64(self.limit)) & (lengths <= self.longest)


def plan(config: ShardConfig, runs: list[Runs]) -> Split:
    """Choose the held-out documents and the borders of the shards from the keys and lengths of all documents."""
    every = np.concatenate([np.zeros(0), *(run.shards.lengths for run in runs)]).astype(np.int64)
    if not len(every):
        raise InputError("shard: no documents with text came in; there is nothing to make shards of")
    keys = np.concatenate([run.keys["key"] for run in runs])
    hashes = np.concatenate([run.keys["held"] for run in runs])
    able = np.flatnonzero((hashes < int(config.heldout_fraction * 2.0**64)) & (every <= config.heldout_tokens))
    able = able[np.argsort(hashes[able], kind="stable")]
    fitting = int(np.searchsorted(np.cumsum(every[able]), config.heldout_tokens, "right"))
    share = f"shard.heldout_fraction: {config.heldout_fraction} of {len(every)} documents"
    if fitting == 0:
        raise InputError(
            f"{share} leaves no held-out document: raise it, or shard.heldout_tokens, or give more documents"
        )
    if fitting == len(every):
        raise InputError(f"{share} holds all of them out: lower it, or give more documents")
    split = Split(int(hashes[able[fitting - 1]]), config.heldout_tokens, ())
    training = ~split.held(hashes, every)
    shift = np.uint64(64 - CELLS)
    tokens = np.bincount((keys[training] >> shift).astype(np.int64), every[training], 1 << CELLS).astype(np.int64)
    number = (np.cumsum(tokens) - tokens) // config.tokens_per_shard
    used = np.flatnonzero(tokens)
    starts = [int(cell) for cell in used[np.flatnonzero(np.diff(number[used], prepend=-1))]]
    ends = [*starts[1:], 1 << CELLS]
    borders = [("shards", low << int(shift), high << int(shift)) for low, high in zip(starts, ends, strict=True)]
    return Split(split.limit, split.longest, (*borders, ("heldout", 0, 1 << 64)))


@dataclass(frozen=True)
class Merge:
    """Task `rank` writes shard `rank`; the last task writes the held-out split."""

    folders: list[Path]
    index: Index
    split: Split

    def __call__(self, rank: int, piece: PieceWriter) -> None:
        """Merge one range of keys from all runs."""
        part, low, high = self.split.borders[rank]
        name = f"{rank if part == 'shards' else 0:05d}"
        documents = self._documents(low, high, part == "heldout", piece.piece.counts)
        made, records = write_shard(partial(piece.write, part), name, self.index, documents)
        piece.piece.note = {"part": part, "shard": asdict(made), "lengths": histogram(self.index, records)}
        prefix = "" if part == "shards" else "heldout_"
        piece.piece.counts.made = {
            f"{prefix}documents": made.documents,
            f"{prefix}tokens": made.tokens,
            f"{prefix}shards": 1,
        }

    def _documents(self, low: int, high: int, held: bool, counts: Counts) -> Iterator[Document]:
        """Documents of the range in global order; of several with one id the smallest is kept, the others counted."""
        opened = [Runs.open(folder) for folder in self.folders]
        places: list[tuple[int, bytes, int, int]] = []
        for number, runs in enumerate(opened):
            keys = runs.keys["key"]
            inside = (keys >= np.uint64(low)) & (keys <= np.uint64(high - 1))
            inside &= self.split.held(runs.keys["held"], runs.shards.lengths) == held
            places += [
                (int(keys[at]), runs.shards.document(int(at)).id.encode(), number, int(at))
                for at in np.flatnonzero(inside)
            ]
        places.sort()
        repeated, lost = 0, 0
        for _, group in groupby(places, key=lambda place: place[:2]):
            same = [opened[number].shards.document(at) for _, _, number, at in group]
            best = min(same, key=_rank) if len(same) > 1 else same[0]
            repeated += len(same) - 1
            lost += sum(document.bytes for document in same) - best.bytes
            yield best
        if repeated:
            counts.funnel.append({"step": "shard", "reason": "repeated id", "documents": repeated, "bytes": lost})


def _rank(document: Document) -> tuple[bytes, str, str]:
    return document.tokens.tobytes(), document.source, document.language


def _index(runs: list[Runs], tokenizer: str) -> Index:
    indexes = [run.shards.index for run in runs]
    return Index(
        vocabulary=indexes[0].vocabulary,
        separator=indexes[0].separator,
        tokenizer=tokenizer,
        sources=tuple(sorted({name for index in indexes for name in index.sources})),
        languages=tuple(sorted({name for index in indexes for name in index.languages})),
    )


def _say_encoder(counts: Counts, runs: list[Piece]) -> None:
    checked, differing = sum(run.note["checked"] for run in runs), sum(not run.note["equal"] for run in runs)
    counts.metrics["documents_checked_against_huggingface"] = {"value": checked, "n": None, "standard_error": None}
    if differing:
        counts.warnings.append(
            f"fastokens gave other token ids than Hugging Face tokenizers in {differing} of {len(runs)} files; "
            "these were encoded by Hugging Face, more slowly"
        )


def _publish(index: Index, merged: list[Piece], piece: PieceWriter) -> Histogram:
    """Write both indexes; returns the lengths of the training documents."""
    lengths: Histogram = {}
    for part in ("heldout", "shards"):
        mine = [(Shard(**some.note["shard"]), some.note["lengths"]) for some in merged if some.note["part"] == part]
        lengths = write_index(partial(piece.write, part), index, mine).lengths
    return lengths


def _show(lengths: Histogram, place: Place) -> None:
    place.record("lengths", lengths)
    series = {
        source: [(float(at), float(number)) for at, number in enumerate(some["documents"])]
        for source, some in lengths.items()
    }
    place.plot("lengths", "Documents by length", "tokens, as power of two", "documents", series, kind="bar")
