"""Documents to token shards in one global random order, with a held-out split by document.

First every input file becomes runs of tokens sorted by key (token_runs.py), then every shard merges its range of keys
from all runs (shard_merge.py). A document's key is a hash of its id, so order, split and every byte are the same
whatever the number of files and workers. Memory is bounded by the size of a run and of a shard.
"""

from functools import partial

import numpy as np
from pydantic import Field

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.engine import run_tasks, total
from data_curation.files import sha256_file
from data_curation.heldout_overlap import HeldOut
from data_curation.place import Piece, PieceWriter, Place
from data_curation.settings import InputError, Settings
from data_curation.shard_index import Index, Shard
from data_curation.shard_merge import Merge, Split, pick, unique
from data_curation.shard_writer import Histogram, histogram, write_index, write_shard
from data_curation.token_runs import PART, RunFile, Tokenise

CELLS = 16  # bits of the key at whose borders shards end
LAST_KEY = (1 << 64) - 1


class ShardConfig(Settings):
    """How documents become token shards."""

    tokens_per_shard: int = Field(default=100_000_000, gt=0)
    """Tokens of one shard file, about (two or four bytes each); documents are never cut."""
    heldout_fraction: float = Field(default=0.005, gt=0, lt=1)
    """Share of the documents that is held out, chosen by a hash of the document id alone: the same for every seed."""
    heldout_tokens: int = Field(default=2_000_000, gt=0)
    """At most so many tokens are held out, and no document longer than that; the rest stays in training."""
    heldout_overlap: float | None = Field(default=0.6, gt=0, le=1)
    """Training documents that share this share of their runs of 8 tokens, or of a held-out document's (of 48 runs or
    more), with a held-out document are dropped; none keeps them."""
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
    work = Tokenise(uris, folder, config.seed)
    runs = run_tasks(place, len(uris), work, module="data_curation.token_runs", prefix="tokens-")
    files = [RunFile.open(place.folder(run, PART) / f"{rank:05d}", run) for rank, run in enumerate(runs)]
    split = plan(config, files)
    index = _index(files, sha256_file(str(folder / "tokenizer.json")))
    heldout, held = _hold_out(index, files, split, place)
    merge = Merge(files, index, split, held, config.heldout_overlap)
    merged = run_tasks(place, len(split.borders), merge, module="data_curation.shard_merge", prefix="shard-")
    counts = total([*runs, heldout, *merged])
    _say_encoder(counts, runs)
    if not counts.made.get("documents"):
        raise InputError(
            f"shard.heldout_overlap is {config.heldout_overlap}: every document is near a held-out one: raise it"
        )
    with place.piece("index") as piece:
        lengths = _publish(index, merged, piece)
        piece.piece.counts, piece.piece.note = counts, {"shards": len(merged), "lengths": lengths}
    _show(lengths, place)
    for run in runs:
        place.drop(run)
    return counts


def plan(config: ShardConfig, files: list[RunFile]) -> Split:
    """Choose the held-out documents and the borders of the shards, one run in memory at a time."""
    number, hashes, sizes = 0, [np.zeros(0, "<u8")], [np.zeros(0, "<u8")]
    runs = [run for file in files for run in file.runs]
    for run in runs:
        held, lengths = run.column("held"), run.records()["length"]
        number += len(lengths)
        able = held < int(config.heldout_fraction * 2.0**64)
        able &= lengths <= config.heldout_tokens
        hashes.append(held[able])
        sizes.append(lengths[able])
    if number == 0:
        raise InputError("shard: no documents with text came in; there is nothing to make shards of")
    able = np.concatenate(hashes)
    order = np.argsort(able, kind="stable")
    fitting = int(np.searchsorted(np.cumsum(np.concatenate(sizes)[order]), config.heldout_tokens, "right"))
    share = f"shard.heldout_fraction: {config.heldout_fraction} of {number} documents"
    if fitting == 0:
        raise InputError(
            f"{share} leaves no held-out document: raise it, or shard.heldout_tokens, or give more documents"
        )
    if fitting == number:
        raise InputError(f"{share} holds all of them out: lower it, or give more documents")
    split = Split(int(able[order[fitting - 1]]), config.heldout_tokens)
    return Split(split.limit, split.longest, _borders(config, files, split))


def _borders(config: ShardConfig, files: list[RunFile], split: Split) -> tuple[tuple[int, int], ...]:
    """First and last key of each shard: ranges of cells that hold about `tokens_per_shard` tokens."""
    shift = np.uint64(64 - CELLS)
    tokens = np.zeros(1 << CELLS, np.int64)
    for run in (run for file in files for run in file.runs):
        lengths = run.records()["length"]
        training = ~split.held(run.column("held"), lengths)
        cells = (run.column("keys")[training] >> shift).astype(np.int64)
        tokens += np.bincount(cells, lengths[training].astype(float), 1 << CELLS).astype(np.int64)
    number = (np.cumsum(tokens) - tokens) // config.tokens_per_shard
    used = np.flatnonzero(tokens)
    starts = [int(cell) for cell in used[np.flatnonzero(np.diff(number[used], prepend=-1))]]
    ends = [*starts[1:], 1 << CELLS]
    return tuple((low << int(shift), (high << int(shift)) - 1) for low, high in zip(starts, ends, strict=True))


def _index(files: list[RunFile], tokenizer: str) -> Index:
    return Index(
        vocabulary=files[0].vocabulary,
        separator=files[0].separator,
        tokenizer=tokenizer,
        sources=tuple(sorted({name for file in files for name in file.sources})),
        languages=tuple(sorted({name for file in files for name in file.languages})),
    )


def _hold_out(index: Index, files: list[RunFile], split: Split, place: Place) -> tuple[Piece, HeldOut]:
    """Write part `heldout`, one shard; returns its piece, and what it holds for comparing."""
    counts = Counts()
    blocks = list(unique(pick(files, index, split, 0, LAST_KEY, held=True), counts))
    records, tokens = (np.concatenate(some) for some in zip(*blocks, strict=True))
    done = place.done("heldout")
    if done is None:
        with place.piece("heldout") as piece:
            shard, _ = write_shard(partial(piece.write, "heldout"), "00000", index, blocks)
            write_index(partial(piece.write, "heldout"), index, [(shard, histogram(index, records))])
            counts.made = {"heldout_documents": shard.documents, "heldout_tokens": shard.tokens}
            piece.piece.counts = counts
        done = piece.piece
    return done, HeldOut.of(tokens, records["length"].astype(np.int64))


def _say_encoder(counts: Counts, runs: list[Piece]) -> None:
    checked, differing = sum(run.note["checked"] for run in runs), sum(not run.note["equal"] for run in runs)
    counts.metrics["documents_checked_against_huggingface"] = {"value": checked, "n": None, "standard_error": None}
    if differing:
        counts.warnings.append(
            f"fastokens gave other token ids than Hugging Face tokenizers in {differing} of {len(runs)} files; "
            "these were encoded by Hugging Face, more slowly"
        )


def _publish(index: Index, merged: list[Piece], piece: PieceWriter) -> Histogram:
    """Write the index of all shards; returns the lengths of the training documents."""
    made = [(Shard(**some.note["shard"]), some.note["lengths"]) for some in merged]
    return write_index(partial(piece.write, "shards"), index, made).lengths


def _show(lengths: Histogram, place: Place) -> None:
    place.record("lengths", lengths)
    series = {
        source: [(float(at), float(number)) for at, number in enumerate(some["documents"])]
        for source, some in lengths.items()
    }
    place.plot("lengths", "Documents by length", "tokens, as power of two", "documents", series, kind="bar")
