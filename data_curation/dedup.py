"""One of each cluster of equal and nearly equal documents, and the index for later crawls."""

from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.decisions import finish
from data_curation.files import File
from data_curation.place import Piece, PieceWriter, Place
from data_curation.settings import InputError, Settings
from data_curation.sources.source import Source

STEPS = ["blocked", "url", "index", "exact", "minhash", "lines"]
"""The steps of the funnel, in the order in which documents meet them."""


class DedupConfig(Settings):
    """Settings of `dedup`: two documents of similarity s meet with probability 1 - (1 - s^rows)^bands."""

    url: bool = True
    """Keep one document of each URL (scheme, case, port, slash and tracking parameters aside): crawls repeat URLs."""
    survivor: Literal["longest", "newest", "best"] = "longest"
    """Which document of a cluster stays: most bytes, latest date or highest `quality`; of equals the smallest id."""
    ngram: int = Field(default=5, ge=1)
    """Words per shingle; similarity is the Jaccard index of two documents' sets of shingles (FineWeb: 5)."""
    bands: int = Field(default=14, ge=1, le=100)
    """Bands of the MinHash signature: more find less similar pairs too (FineWeb: 14)."""
    rows: int = Field(default=8, ge=1)
    """Hashes per band: more demand more similarity (FineWeb: 8)."""
    seed: int = Field(default=1, ge=0, lt=2**32)
    """Seed of the hash functions; an index is of use only to runs with the same seed, bands, rows and ngram."""
    repeated_lines: int = Field(default=0, ge=0)
    """A line that stands in more documents than this is cut out of all but the one with the smallest id; 0: never."""
    line_words: int = Field(default=5, ge=1)
    """Shorter lines (headings, brackets) are never cut."""
    indexes: list[Source] = []
    """Parts `index` of older runs, kind `parquet`: a document that matches one of theirs is dropped."""
    blocked: list[Source] = []
    """Block lists, kind `lines`: one id or URL a line; such documents are dropped before anything else."""

    @model_validator(mode="after")
    def _kinds_fit(self) -> Self:
        for name, sources, kind in (("indexes", self.indexes, "parquet"), ("blocked", self.blocked, "lines")):
            for number, source in enumerate(sources):
                if source.kind != kind:
                    raise ValueError(f"dedup.{name}[{number}].kind is {source.kind!r}: use {kind!r}")
        return self


def dedup(
    config: DedupConfig,
    documents: Artifact,
    place: Place,
    indexes: list[Artifact] | None = None,
    blocked: list[Artifact] | None = None,
) -> Counts:
    """Keep one document of each cluster; parts `documents`, `index` (of these survivors alone) and `decisions`.

    Clusters are joined through any chain of equal texts or equal bands, so neither the order of files nor the number
    of workers matters. Every dropped document's decision names the id of the one kept. `indexes` and `blocked` are
    the listings of the config's sources, in the same order. ConfigError where an index was made with other settings.
    """
    from data_curation.dedup_index import index_files, index_name, missing_indexes
    from data_curation.dedup_report import describe
    from data_curation.engine import run_tasks, total

    files = tuple(documents.uris("documents", ".parquet"))
    if not files:
        raise InputError(f"{documents.name}: no file of documents to deduplicate")
    older = index_files(config, indexes or [])
    signed = run_tasks(
        place, len(files), SignTask(config, files), module="data_curation.dedup_signatures", prefix="signatures-"
    )
    verdicts = place.done("clusters") or judge(config, older, blocked or [], signed, place)
    repeated = _repeated_lines(config, files, place) if config.repeated_lines else ()
    task = KeepTask(config, files, repeated, tuple(sorted(index_name(listed) for listed in indexes or [])))
    pieces = run_tasks(place, len(files), task, module="data_curation.dedup_keep")
    counts = finish(place, total(pieces), STEPS, pieces)
    describe(config, files, verdicts, pieces, counts, place)
    counts.warnings += missing_indexes(config, indexes or [])
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
class LinesTask:
    """One task: the lines of the documents that stay of one file."""

    config: DedupConfig
    files: tuple[str, ...]

    def __call__(self, rank: int, piece: PieceWriter) -> None:
        """Count the lines of file `rank`."""
        from data_curation.dedup_lines import count_lines

        count_lines(self.config, self.files[rank], rank, piece)


@dataclass(frozen=True)
class KeepTask:
    """One task: one file of documents in, its survivors and their signatures out."""

    config: DedupConfig
    files: tuple[str, ...]
    repeated: tuple[str, ...]
    older: tuple[str, ...]

    def __call__(self, rank: int, piece: PieceWriter) -> None:
        """Write the survivors of file `rank`."""
        from data_curation.dedup_keep import keep

        keep(self.config, self.files[rank], rank, self.repeated, self.older, piece)


def judge(config: DedupConfig, older: list[str], blocked: list[Artifact], signed: list[Piece], place: Place) -> Piece:
    """Decide on every document from its signature; `older` are URIs of index files, the first documents of all."""
    from data_curation.dedup_columns import Columns
    from data_curation.dedup_index import read_blocked
    from data_curation.dedup_verdicts import Verdicts, write_verdicts

    uris = [str(place.folder(one, "work/signatures") / file.path) for one in signed for file in _files(one)]
    scored = Columns.of(uris)
    columns = Columns.of([*older, *uris])
    verdicts = Verdicts(config, columns, scored, columns.rows - scored.rows)
    verdicts.block(read_blocked(config, blocked))
    if config.url:
        verdicts.by_url()
    verdicts.by_text()
    with place.piece("clusters") as piece:
        write_verdicts(verdicts, verdicts.finish(), piece)
    return piece.piece


def _files(piece: Piece) -> list[File]:
    return piece.files["work/signatures"]


def _repeated_lines(config: DedupConfig, files: tuple[str, ...], place: Place) -> tuple[str, ...]:
    """URI of the table of repeated lines, as a list of one."""
    from data_curation.dedup_lines import merge_lines
    from data_curation.engine import run_tasks

    counted = run_tasks(
        place, len(files), LinesTask(config, files), module="data_curation.dedup_lines", prefix="lines-"
    )
    merged = place.done("repeated")
    if merged is None:
        with place.piece("repeated") as piece:
            merge_lines(config, counted, piece)
        merged = piece.piece
    return (str(place.folder(merged, "work/repeated") / merged.files["work/repeated"][0].path),)
