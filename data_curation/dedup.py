"""One of each cluster of equal and nearly equal documents, and the index for later crawls."""

from collections import Counter
from dataclasses import dataclass

from pydantic import Field

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.decisions import bar_plot, finish
from data_curation.place import Piece, PieceWriter, Place
from data_curation.settings import InputError, Settings


class DedupConfig(Settings):
    """Settings of `dedup`: two documents of similarity s meet with probability 1 - (1 - s^rows)^bands."""

    ngram: int = Field(default=5, ge=1)
    """Words per shingle; similarity is the Jaccard index of two documents' sets of shingles (FineWeb: 5)."""
    bands: int = Field(default=14, ge=1)
    """Bands of the MinHash signature: more find less similar pairs too (FineWeb: 14)."""
    rows: int = Field(default=8, ge=1)
    """Hashes per band: more demand more similarity (FineWeb: 8)."""
    seed: int = Field(default=1, ge=0)
    """Seed of the hash functions; an index is of use only to runs with the same seed, bands, rows and ngram."""


def dedup(config: DedupConfig, documents: Artifact, place: Place) -> Counts:
    """Keep the longest document of each cluster (of equals the one with the smallest id); parts `documents`, `index`.

    Clusters are joined through any chain of equal texts or equal bands, so neither the order of files nor the number
    of workers matters. Every dropped document's decision names the id of the one kept.
    """
    from data_curation.dedup_clusters import judge
    from data_curation.engine import run_tasks, total

    files = tuple(documents.uris("documents", ".parquet"))
    if not files:
        raise InputError(f"{documents.name}: no file of documents to deduplicate")
    signed = run_tasks(
        place, len(files), SignTask(config, files), module="data_curation.dedup_clusters", prefix="signatures-"
    )
    verdicts = place.done("clusters")
    if verdicts is None:
        with place.piece("clusters") as piece:
            judge(signed, place, piece)
        verdicts = piece.piece
    pieces = run_tasks(place, len(files), KeepTask(files))
    counts = finish(place, total(pieces), ["exact", "minhash"], pieces)
    _describe(verdicts, counts, place)
    return counts


@dataclass(frozen=True)
class SignTask:
    """One task: the signatures of one file of documents."""

    config: DedupConfig
    files: tuple[str, ...]

    def __call__(self, rank: int, piece: PieceWriter) -> None:
        """Sign the documents of file `rank`."""
        from data_curation.dedup_signatures import sign

        sign(self.config, self.files[rank], rank, piece)


@dataclass(frozen=True)
class KeepTask:
    """One task: one file of documents in, its survivors and their signatures out."""

    files: tuple[str, ...]

    def __call__(self, rank: int, piece: PieceWriter) -> None:
        """Write the survivors of file `rank`."""
        from data_curation.dedup_clusters import keep

        keep(self.files[rank], rank, piece)


def _describe(verdicts: Piece, counts: Counts, place: Place) -> None:
    """Sizes of clusters, and the largest one by its URLs."""
    sizes = {int(size): int(number) for size, number in verdicts.note["sizes"].items()}
    clusters = sum(sizes.values())
    counts.metrics["clusters"] = {"value": clusters, "n": None, "standard_error": None}
    counts.metrics["largest_cluster"] = {"value": max(sizes, default=0), "n": None, "standard_error": None}
    groups = Counter[str]()
    for size, number in sizes.items():
        groups[str(size) if size < 10 else "10 and more"] += number
    bar_plot(place, "clusters", "Clusters of duplicates, by documents in them", "documents in a cluster", dict(groups))
    if verdicts.note["largest"]:
        counts.samples.append({"title": "the largest cluster", "text": "\n".join(verdicts.note["largest"])})
