"""Length, symbols, lists and stop words (Gopher's quality rules)."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from data_curation.rules.rule import Scores
from data_curation.settings import Settings

if TYPE_CHECKING:
    from data_curation.rules.text import Batch, Text

_ELLIPSES = ("...", "…")
_BULLETS = ("•", "-")


class GopherConfig(Settings):
    """Gopher's quality rules (Rae et al. 2021, section A.1.1) with its thresholds."""

    MEASURES: ClassVar[frozenset[str]] = frozenset()

    min_words: int = Field(default=50, ge=1)
    """Fewest words of a document; punctuation does not count."""
    max_words: int = Field(default=100_000, ge=1)
    """Most words of a document."""
    min_word_length: float = 3
    """Least mean length of the words, in characters."""
    max_word_length: float = 10
    """Largest mean length of the words, in characters."""
    max_hashes: float = 0.1
    """Most hash signs per word, punctuation counted as words."""
    max_ellipses: float = 0.1
    """Most ellipses per word, punctuation counted as words."""
    max_bullet_lines: float = 0.9
    """Largest share of lines that begin with a bullet or a hyphen."""
    max_ellipsis_lines: float = 0.3
    """Largest share of lines that end with an ellipsis."""
    min_alphabetic_words: float = 0.8
    """Least share of words with a letter."""
    min_stop_words: int = Field(default=2, ge=0)
    """Fewest different stop words, for languages that list some."""

    @model_validator(mode="after")
    def _words_fit(self) -> Self:
        if self.max_words < self.min_words:
            raise ValueError(
                f"clean.gopher.max_words is {self.max_words}, below clean.gopher.min_words ({self.min_words}): raise it"
            )
        return self

    def measure(self, batch: "Batch", full: bool) -> Sequence[dict[str, Any]]:
        """Counts and shares of each text; shares of lines may be bounds, unless `full`."""
        from data_curation.rules.vocabulary import LETTER, MARKS

        marks = (batch.flags & MARKS) > 0
        columns = zip(
            batch.texts,
            batch.counts().tolist(),
            batch.sums(~marks).tolist(),
            batch.sums(batch.characters * ~marks).tolist(),
            batch.sums((batch.flags & LETTER) > 0).tolist(),
            _stop_words(batch),
            strict=True,
        )
        return [
            {"words": words, "word_length": characters / max(1, words), "alphabetic_words": letters / max(1, every)}
            | ({} if stop is None else {"stop_words": stop})
            | self._symbols(text, every, full)
            if full or text.live
            else {}
            for text, every, words, characters, letters, stop in columns
        ]

    def judge(self, scores: Scores) -> str:
        """The first rule that is broken, in datatrove's order."""
        if "words" not in scores:
            return ""
        broken = {
            "gopher-short-doc": scores["words"] < self.min_words,
            "gopher-long-doc": scores["words"] > self.max_words,
            "gopher-below-avg-threshold": scores["word_length"] < self.min_word_length,
            "gopher-above-avg-threshold": scores["word_length"] > self.max_word_length,
            "gopher-too-many-hashes": scores["hashes"] > self.max_hashes,
            "gopher-too-many-ellipsis": scores["ellipses"] > self.max_ellipses,
            "gopher-too-many-bullets": scores["bullet_lines"] > self.max_bullet_lines,
            "gopher-too-many-end-ellipsis": scores["ellipsis_lines"] > self.max_ellipsis_lines,
            "gopher-below-alpha-threshold": scores["alphabetic_words"] < self.min_alphabetic_words,
            "gopher-enough-stop-words": scores.get("stop_words", self.min_stop_words) < self.min_stop_words,
        }
        return next((reason for reason, is_broken in broken.items() if is_broken), "")

    def passage(self, text: "Text", reason: str) -> str:
        """The offending lines, else the document's beginning."""
        if reason == "gopher-too-many-bullets":
            return "\n".join(line for line in text.lines if _is_bullet(line))
        if reason == "gopher-too-many-end-ellipsis":
            return "\n".join(line for line in text.lines if _is_cut(line))
        for of, mark in (("hashes", "#"), ("ellipsis", r"\.\.\.|…")):
            found = re.search(rf".{{0,100}}(?:{mark})(?s:.){{0,150}}", text.text) if of in reason else None
            if found:
                return found.group()
        return text.text[:300]

    def _symbols(self, text: "Text", words: int, full: bool) -> dict[str, Any]:
        raw, words, lines = text.text, max(1, words), max(1, len(text.lines))
        ellipses = raw.count("...") + raw.count("…")
        bullets, cuts = raw.count("-") + raw.count("•"), ellipses
        if bullets and (full or bullets / lines > self.max_bullet_lines):
            bullets = sum(map(_is_bullet, text.lines))
        if cuts and (full or cuts / lines > self.max_ellipsis_lines):
            cuts = sum(map(_is_cut, text.lines))
        return {
            "hashes": raw.count("#") / words,
            "ellipses": ellipses / words,
            "bullet_lines": bullets / lines,
            "ellipsis_lines": cuts / lines,
        }


def _stop_words(batch: "Batch") -> list[int | None]:
    """Different stop words of each text; None for languages that list none."""
    import numpy as np

    stop = batch.vocabulary.stop.values[batch.word]
    at = np.flatnonzero(stop >= 0)
    width = int(stop.max(initial=0)) + 1
    text = np.searchsorted(batch.start, at, side="right") - 1
    found = np.bincount(np.unique(text * width + stop[at]) // width, minlength=len(batch.texts)).tolist()
    listed = batch.vocabulary.listed
    return [count if text.language in listed else None for text, count in zip(batch.texts, found, strict=True)]


def _is_bullet(line: str) -> bool:
    return line.lstrip().startswith(_BULLETS)


def _is_cut(line: str) -> bool:
    return line.rstrip().endswith(_ELLIPSES)
