"""Documents kept by language, published heuristic rules and a quality model, each decision with its reason."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.decisions import bar_plot, finish
from data_curation.language import Language, usual
from data_curation.pii import PiiConfig
from data_curation.place import Piece, PieceWriter, Place
from data_curation.quality import QualityConfig
from data_curation.rules.c4 import C4Config
from data_curation.rules.fineweb import FineWebConfig
from data_curation.rules.gopher import GopherConfig
from data_curation.rules.lines import LinesConfig
from data_curation.rules.repetition import RepetitionConfig
from data_curation.rules.rule import Rule
from data_curation.rules.urls import UrlsConfig
from data_curation.settings import InputError, Settings

__all__ = ["CleanConfig", "Language", "clean"]

RULES = ("repetition", "gopher", "lines", "c4", "fineweb")
"""The sections of rules, in FineWeb's order."""
STEPS = ("urls", "language", *RULES, "quality")
"""All steps that drop documents, in the order in which documents meet them."""


class CleanConfig(Settings):
    """Settings of `clean`. Every section of rules is switched off by `null` (`clean.c4: null`)."""

    languages: list[Language] = usual()
    """Languages to keep; documents in others are dropped. Words are split by spaCy's rules for each."""
    language_characters: int = Field(default=2000, ge=1)
    """Characters at a document's start that the language identification reads (accuracy .998)."""
    urls: UrlsConfig | None = None
    """Blocked URLs."""
    normalise: bool = True
    """Decode again what was decoded wrongly, take out control characters, compose Unicode (ftfy)."""
    repetition: RepetitionConfig | None = RepetitionConfig()
    """Repeated lines, paragraphs and runs of words (Gopher)."""
    gopher: GopherConfig | None = GopherConfig()
    """Length, symbols, lists and stop words (Gopher)."""
    lines: LinesConfig | None = None
    """Lines that are no prose, taken out (RefinedWeb)."""
    c4: C4Config | None = C4Config()
    """Lines taken out, and documents dropped for brackets, filler and too few sentences (C4)."""
    fineweb: FineWebConfig | None = FineWebConfig()
    """Punctuated, short and repeated lines of what is left (FineWeb)."""
    quality: QualityConfig | None = None
    """A model's score of what is left, in the column `quality`; with `min_score` also a reason to drop."""
    pii: PiiConfig | None = PiiConfig()
    """Personal data, replaced in the documents that stay."""
    decisions: Literal["reasons", "full"] = "reasons"
    """With `full`, all rules measure all documents and keep their scores, so that `tokenmill whatif` can answer."""

    @model_validator(mode="after")
    def _languages_fit(self) -> Self:
        codes = [language.code for language in self.languages]
        if not codes or len(set(codes)) != len(codes):
            raise ValueError(f"clean.languages names {codes}: name one language or more, each once")
        return self

    def rules(self) -> Iterator[tuple[str, Rule]]:
        """The rules that are on, by section, in the order in which documents meet them."""
        for name in RULES:
            rule = getattr(self, name)
            if rule is not None:
                yield name, rule

    def language_reason(self, code: str, score: float) -> str:
        """Why a document of this language goes, or nothing."""
        least = next((language.score for language in self.languages if language.code == code), None)
        if least is None:
            return f"language-{code}"
        return "language-unsure" if score < least else ""

    def judge(self, scores: Mapping[str, Any]) -> tuple[str, str]:
        """Step and reason of a document with these scores, as `decisions: full` keeps them; empty where it stays."""
        if self.urls is not None and (blocked := scores.get("urls")):
            return "urls", blocked["reason"]
        if reason := self.language_reason(scores["language"], scores["language_score"]):
            return "language", reason
        sections = [*self.rules(), *([("quality", self.quality)] if self.quality else [])]
        return next(((name, why) for name, one in sections if (why := one.judge(scores.get(name, {})))), ("", ""))


def clean(
    config: CleanConfig,
    documents: Artifact,
    place: Place,
    positive: list[Artifact] | None = None,
    negative: list[Artifact] | None = None,
) -> Counts:
    """Identify each document's language, apply rules and quality model; one output file per input file.

    `positive` and `negative` are the listings of the quality model's sources, in the config's order.
    """
    from data_curation.engine import run_tasks, total

    files = tuple(documents.uris("documents", ".parquet"))
    if not files:
        raise InputError(f"{documents.name}: no file of documents to clean")
    model = None
    if config.quality is not None and not config.quality.model:
        from data_curation.quality_training import trained

        model = trained(config.quality, files, positive or [], negative or [], place)
    task = CleanTask(config, files, str(place.folder(model, "quality")) if model else "")
    pieces = run_tasks(place, len(files), task, module="data_curation.clean_steps")
    counts = finish(place, total(pieces), list(STEPS), pieces)
    if model:
        counts.add(model.counts)
    _describe(place, pieces, counts)
    return counts


@dataclass(frozen=True)
class CleanTask:
    """One task: one file of documents in, one out."""

    config: CleanConfig
    files: tuple[str, ...]
    model: str
    """Local folder of the quality model that was trained here, if one was."""

    def __call__(self, rank: int, piece: PieceWriter) -> None:
        """Clean file `rank` into `piece`."""
        from data_curation.clean_steps import run

        run(self.config, self.files[rank], self.model, rank, piece)


def _describe(place: Place, pieces: Sequence[Piece], counts: Counts) -> None:
    """Languages of what is kept, and how many documents were normalised and personal data replaced."""
    languages, changes = Counter[str](), Counter[str]()
    for piece in pieces:
        languages.update(piece.note["languages"])
        changes.update(piece.note["changes"])
    bar_plot(place, "languages", "Documents kept, by language", "language", dict(languages))
    place.record("languages", dict(sorted(languages.items())))
    seen = counts.taken["documents"]
    counts.metrics |= {
        name: {"value": number, "n": seen, "standard_error": None} for name, number in sorted(changes.items())
    }
