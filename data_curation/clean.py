"""Documents kept by language and by the heuristic rules of Gopher and FineWeb, each decision with its reason."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.decisions import bar_plot, finish
from data_curation.place import PieceWriter, Place
from data_curation.settings import InputError, Settings

Rule = Literal["gopher-repetition", "gopher-quality", "fineweb"]


class Language(Settings):
    """One language to keep, and what the rules need to know of it."""

    code: str
    """ISO 639-1 code, as fastText's lid.176 names it."""
    score: float = Field(default=0.65, ge=0, le=1)
    """Least confidence of the language identification (FineWeb's value for English)."""
    stop_words: list[str] = []
    """Common words, two of which each document must hold (Gopher); none switches that rule off."""


def _languages() -> list[Language]:
    words = {
        "en": "the be to of and that have with",  # Gopher's own list, table A1
        "de": "der die das und ist nicht zu von",
        "fr": "le la les et est de que pour",
        "es": "el la los y es de que para",
        "it": "il la che e di per non sono",
        "nl": "de het een en is van niet voor",
        "pt": "o a os e de que para não",
        "ru": "и в не на что для по это",
    }
    return [Language(code=code, stop_words=listed.split()) for code, listed in words.items()]


class CleanConfig(Settings):
    """Settings of `clean`."""

    languages: list[Language] = _languages()
    """Languages to keep; documents in others are dropped. Words are split by spaCy's rules for each."""
    rules: list[Rule] = ["gopher-repetition", "gopher-quality", "fineweb"]
    """Rules that every document must pass, in this order, with the published thresholds as datatrove has them."""
    language_characters: int = Field(default=2000, ge=1)
    """Characters at a document's start that the language identification reads (accuracy .998)."""
    min_words: int = Field(default=50, ge=1)
    """Fewest words of a document (Gopher)."""
    max_words: int = 100_000
    """Most words of a document (Gopher)."""
    min_punctuated_lines: float = 0.12
    """Least share of lines that end with punctuation (FineWeb)."""
    max_short_lines: float = 0.67
    """Largest share of lines of 30 characters or fewer (FineWeb)."""
    max_repeated_lines: float = 0.01
    """Largest share of characters in repeated lines (FineWeb)."""
    max_line_breaks: float = 0.3
    """Most line breaks per word (FineWeb)."""

    @model_validator(mode="after")
    def _languages_fit(self) -> Self:
        codes = [language.code for language in self.languages]
        if not codes or len(set(codes)) != len(codes):
            raise ValueError(f"clean.languages names {codes}: name one language or more, each once")
        if self.max_words < self.min_words:
            raise ValueError(f"clean.max_words is {self.max_words}, below clean.min_words ({self.min_words}): raise it")
        return self


def clean(config: CleanConfig, documents: Artifact, place: Place) -> Counts:
    """Identify each document's language and apply the rules; one output file per input file."""
    from data_curation.engine import run_tasks, total

    files = tuple(documents.uris("documents", ".parquet"))
    if not files:
        raise InputError(f"{documents.name}: no file of documents to clean")
    pieces = run_tasks(place, len(files), CleanTask(config, files), module="data_curation.clean_steps")
    counts = finish(place, total(pieces), ["language", *config.rules], pieces)
    languages = Counter[str]()
    for piece in pieces:
        languages.update(piece.note["languages"])
    bar_plot(place, "languages", "Documents kept, by language", "language", dict(languages))
    place.record("languages", dict(sorted(languages.items())))
    return counts


@dataclass(frozen=True)
class CleanTask:
    """One task: one file of documents in, one out."""

    config: CleanConfig
    files: tuple[str, ...]

    def __call__(self, rank: int, piece: PieceWriter) -> None:
        """Clean file `rank` into `piece`."""
        from data_curation.clean_steps import run

        run(self.config, self.files[rank], rank, piece)
