"""Raw records of every source turned into documents: text, title, URL, date."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from pydantic import Field, model_validator

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.decisions import finish
from data_curation.html_text import MAIN_SHARE, MAX_BYTES, MAX_DEPTH, Extracted, extract_html
from data_curation.place import Piece, PieceWriter, Place
from data_curation.settings import InputError, Settings, outside_identity
from data_curation.sources.shares import Share, tasks
from data_curation.sources.source import Source

__all__ = ["ExtractConfig", "Extracted", "extract", "extract_html"]

BAD = "bad-record"
"""Reason of a record that is wrong while the rest of its file is not."""
STEPS = ["file", "record", "sample", "extract"]

EMBEDDED = Source(
    name="debian-web",
    kind="web-packages",
    packages=[
        *("libreoffice-help-en-us", "libreoffice-help-en-gb", "libreoffice-help-de", "libreoffice-help-fr"),
        *("apache2-doc", "postgresql-doc-15", "harden-doc", "live-manual-html", "anarchism", "debian-faq"),
        *("debian-faq-de", "debian-faq-fr", "debian-faq-it", "debian-faq-ja", "debian-faq-nl", "debian-faq-pt"),
        *("debian-faq-ru", "debian-faq-zh-cn"),
    ],
)
"""Free documentation, 13,476 pages in nine languages, with real near-duplicates (en-us and en-gb)."""


class ExtractConfig(Settings):
    """Settings of `extract`."""

    sources: list[Source] = [EMBEDDED]
    """Where raw pages come from; any number, of any kind but `chat-packages` and `lines`."""
    bytes_per_task: int = Field(default=256 * 2**20, ge=1)
    """Source files are grouped into tasks, and output files, of about this many bytes."""
    max_bytes: int = Field(default=MAX_BYTES, ge=1)
    """A raw record above this size is dropped as too large."""
    max_depth: int = Field(default=MAX_DEPTH, ge=1)
    """A page of 3,000 tags or more whose elements nest deeper is dropped: the time is quadratic in the depth."""
    main_share: float = Field(default=MAIN_SHARE, ge=0, le=1)
    """Where main content is a smaller share of all text, the slow and careful extractor is asked too."""
    blocked: list[Source] = outside_identity([])
    """Folders of plain block lists, ids or URLs: such pages are passed over. No part of the key, so that a list makes
    nothing again; pages that were extracted before it leave at `dedup`, or with `tokenmill takedown --purge`."""
    max_bad_files: int = Field(default=0, ge=0)
    """Source files that may be cut or damaged: each is left out as a whole and named. With 0 the first one fails."""
    max_bad_documents: float = Field(default=0.001, ge=0)
    """Records of a source that may be wrong one by one (a line that is no JSON, a text that is no string): below 1 a
    share of its records, rounded up, from 1 their number. Each is dropped and named; more than that fail the stage."""

    @model_validator(mode="after")
    def _sources_fit(self) -> Self:
        names = [source.name for source in self.sources]
        if not names:
            raise ValueError("extract.sources is empty: name one source or more")
        if len(set(names)) != len(names):
            raise ValueError(f"extract.sources are named {names}: names are part of document ids, give each its own")
        for index, source in enumerate(self.sources):
            if source.kind == "chat-packages":
                raise ValueError(f"extract.sources[{index}].kind is 'chat-packages': move it to dialogues.sources")
            if source.kind == "lines":
                raise ValueError(f"extract.sources[{index}].kind is 'lines': a line is no document, make it jsonl")
        return self


def extract(config: ExtractConfig, sources: list[Artifact], place: Place) -> Counts:
    """Extract the text of all sources; `sources` are the listings of `config.sources`, in the same order."""
    from data_curation.engine import run_tasks, total

    work = ExtractTask(config, tuple(tasks(config.sources, sources, config.bytes_per_task)))
    pieces = run_tasks(place, len(work.tasks), work, module="data_curation.extract_steps")
    counts = total(pieces)
    bad = [str(words) for piece in pieces for words in piece.note["bad"]]
    if len(bad) > config.max_bad_files:
        raise InputError(too_many_files(config, bad))
    counts.warnings += [f"{len(bad)} damaged source files left out: {', '.join(bad)}"] if bad else []
    counts.warnings += _wrong(config, pieces)
    counts.samples = counts.samples[:: max(1, len(counts.samples) // 3)][:3]
    return finish(place, counts, STEPS, pieces)


@dataclass(frozen=True)
class ExtractTask:
    """One task: its share of the files in, one file of documents out."""

    config: ExtractConfig
    tasks: tuple[Share, ...]

    def __call__(self, rank: int, piece: PieceWriter) -> None:
        """Extract the files of task `rank` into `piece`."""
        from data_curation.extract_steps import run

        run(self.config, self.tasks[rank], rank, piece)


def too_many_files(config: ExtractConfig, bad: list[str]) -> str:
    """The error of a run that met more damaged files than it may."""
    return (
        f"{len(bad)} damaged source files, extract.max_bad_files allows {config.max_bad_files}: {'; '.join(bad[:3])}; "
        "fetch them again, correct the source's fields, or raise it"
    )


def _wrong(config: ExtractConfig, pieces: Sequence[Piece]) -> list[str]:
    """A sentence for each source with bad records; InputError where a source has more than allowed."""
    said: list[str] = []
    for source in config.sources:
        notes = [piece.note for piece in pieces if piece.note["source"] == source.name]
        wrong, read = sum(note["wrong"] for note in notes), sum(note["read"] for note in notes)
        if not wrong:
            continue
        share = config.max_bad_documents
        allowed = math.ceil(share * read) if share < 1 else int(share)
        first = next(note["first"] for note in notes if note["first"])
        words = f"{wrong} of {read} records of source {source.name!r} are bad, the first: {first}"
        if wrong > allowed:
            raise InputError(f"{words}; extract.max_bad_documents allows {allowed}: correct them or raise it")
        said.append(words)
    return said
