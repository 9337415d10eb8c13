"""Repeated lines, paragraphs and runs of words (Gopher, table A1)."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from data_curation.rules.rule import Scores, first
from data_curation.settings import Settings

if TYPE_CHECKING:
    from data_curation.rules.repeats import Repeats
    from data_curation.rules.text import Batch, Text

_PARAGRAPHS, _LINES = re.compile(r"\n{2,}"), re.compile(r"\n+")
_TOPS, _DUPLICATES = (2, 3, 4), (5, 6, 7, 8, 9, 10)


class RepetitionConfig(Settings):
    """Largest shares of a document that may be repetition, as in Gopher's table A1; 0 switches one off."""

    MEASURES: ClassVar[frozenset[str]] = frozenset()

    duplicate_paragraphs: float = Field(default=0.3, ge=0)
    """Largest share of paragraphs that stood before."""
    duplicate_paragraph_characters: float = Field(default=0.2, ge=0)
    """Largest share of characters in paragraphs that stood before."""
    duplicate_lines: float = Field(default=0.3, ge=0)
    """Largest share of lines that stood before."""
    duplicate_line_characters: float = Field(default=0.2, ge=0)
    """Largest share of characters in lines that stood before."""
    top_2_gram: float = Field(default=0.2, ge=0)
    """Largest share of characters in the most frequent pair of words."""
    top_3_gram: float = Field(default=0.18, ge=0)
    """Largest share of characters in the most frequent run of 3 words."""
    top_4_gram: float = Field(default=0.16, ge=0)
    """Largest share of characters in the most frequent run of 4 words."""
    duplicate_5_grams: float = Field(default=0.15, ge=0)
    """Largest share of characters in runs of 5 words that stood before."""
    duplicate_6_grams: float = Field(default=0.14, ge=0)
    """The same of 6 words."""
    duplicate_7_grams: float = Field(default=0.13, ge=0)
    """The same of 7 words."""
    duplicate_8_grams: float = Field(default=0.12, ge=0)
    """The same of 8 words."""
    duplicate_9_grams: float = Field(default=0.11, ge=0)
    """The same of 9 words."""
    duplicate_10_grams: float = Field(default=0.1, ge=0)
    """The same of 10 words."""

    def measure(self, batch: "Batch", full: bool) -> Sequence[dict[str, Any]]:
        """Shares of each text; a share of runs of words may be a bound that its threshold admits, unless `full`."""
        scores = [_lines(text) for text in batch.texts]
        _Grams(self, batch, scores, full).measure()
        return scores

    def judge(self, scores: Scores) -> str:
        """The first of the shares that is too large, in datatrove's order."""
        if not scores.get("characters", 1):
            return "empty"
        return first(scores, [(name, most, reason) for name, most, reason in self._bounds() if most])

    def passage(self, text: "Text", reason: str) -> str:
        """The repeated run of words, or the line or paragraph repeated most."""
        if reason in text.marks:
            return text.marks[reason]
        parts = _paragraphs(text) if "para" in reason else _lines_of(text)
        return max(Counter(parts).items(), key=lambda item: (item[1] > 1, len(item[0]) * (item[1] - 1)))[0]

    def _bounds(self) -> list[tuple[str, float, str]]:
        return [
            ("duplicate_paragraphs", self.duplicate_paragraphs, "dup-para-frac"),
            ("duplicate_paragraph_characters", self.duplicate_paragraph_characters, "dup-para-char-frac"),
            ("duplicate_lines", self.duplicate_lines, "dup-line-frac"),
            ("duplicate_line_characters", self.duplicate_line_characters, "dup-line-char-frac"),
            *((_top(n), getattr(self, _top(n)), _top_reason(n)) for n in _TOPS),
            *((_duplicate(n), getattr(self, _duplicate(n)), _duplicate_reason(n)) for n in _DUPLICATES),
        ]


class _Grams:
    """Measures the repeated runs of words of one batch."""

    def __init__(self, config: RepetitionConfig, batch: "Batch", scores: list[dict[str, Any]], full: bool) -> None:
        import numpy as np

        self.config, self.batch, self.scores, self.full = config, batch, scores, full
        self.sums = np.concatenate([[0], np.cumsum(batch.characters)])
        self.length = np.array([max(1, len(text.text)) for text in batch.texts])
        self.kept = np.array([full or not config.judge(score) for score in scores], bool)

    def measure(self) -> None:
        """Go from single words to runs of 10, leaving out what has failed or can no longer fail."""
        from data_curation.rules.repeats import Repeats

        repeats = Repeats(self.batch.word, self.batch.start)
        for n in _TOPS:
            repeats.grow(self.kept)
            self._top(repeats, n)
        for n in _DUPLICATES:
            repeats.grow(self.kept)
            self._duplicates(repeats, n)

    def _top(self, repeats: "Repeats", n: int) -> None:
        import numpy as np

        top, most = repeats.top(), getattr(self.config, _top(n))
        counts = self.batch.counts()
        long_enough = counts >= n
        at = np.where(long_enough, top.at, 0)
        size = self.sums[np.minimum(at + n, repeats.size)] - self.sums[at] + n - 1
        share = np.where(long_enough, top.times * size / self.length, 0.0)
        failed = (share > most) & self.kept & (most > 0)
        for index, value in enumerate(share.tolist()):
            if self.kept[index]:
                self.scores[index][_top(n)] = value
        self._mark(repeats, failed, top.at, _top_reason(n))

    def _duplicates(self, repeats: "Repeats", n: int) -> None:
        import numpy as np

        most = getattr(self.config, _duplicate(n))
        share = repeats.covered(self.batch.characters) / self.length
        for index in np.flatnonzero(self.kept & (share > (0 if self.full else most))).tolist():
            share[index] = repeats.skipped(index, self.sums) / self.length[index]
        for index in np.flatnonzero(self.kept).tolist():
            self.scores[index][_duplicate(n)] = float(share[index])
        failed = (share > most) & self.kept & (most > 0)
        self._mark(repeats, failed, repeats.top().at, _duplicate_reason(n))

    def _mark(self, repeats: "Repeats", failed: Any, at: Any, reason: str) -> None:
        """Note the passage of texts that fail here, which have nothing more to show."""
        names, word = self.batch.vocabulary.names, self.batch.word
        for index in failed.nonzero()[0].tolist():
            place = int(at[index])
            passage = " ".join(names[number] for number in word[place : place + repeats.n].tolist())
            self.batch.texts[index].marks[reason] = passage
        if not self.full:
            self.kept &= ~failed


def _lines(text: "Text") -> dict[str, Any]:
    size = len(text.text)
    if not size:
        return {"characters": 0}
    paragraphs, lines = _paragraphs(text), _lines_of(text)
    again, characters = duplicates(paragraphs)
    scores = {"duplicate_paragraphs": again / len(paragraphs), "duplicate_paragraph_characters": characters / size}
    again, characters = duplicates(lines)
    return scores | {"duplicate_lines": again / len(lines), "duplicate_line_characters": characters / size}


def _paragraphs(text: "Text") -> list[str]:
    if "\n\n\n" in text.text:
        return _PARAGRAPHS.split(text.text.strip())
    return text.text.strip().split("\n\n")


def _lines_of(text: "Text") -> list[str]:
    if text.text[0] == "\n" or text.text[-1] == "\n":
        return _LINES.split(text.text)
    return [line for line in text.text.split("\n") if line]


def duplicates(parts: Sequence[str]) -> tuple[int, int]:
    """How many parts stood before, and their characters."""
    if len(set(parts)) == len(parts):
        return 0, 0
    again = [(count - 1, len(part)) for part, count in Counter(parts).items() if count > 1]
    return sum(count for count, _ in again), sum(count * size for count, size in again)


def _top(n: int) -> str:
    return f"top_{n}_gram"


def _top_reason(n: int) -> str:
    return f"top-{n}-gram"


def _duplicate(n: int) -> str:
    return f"duplicate_{n}_grams"


def _duplicate_reason(n: int) -> str:
    return f"duplicated-{n}-n-grams"
