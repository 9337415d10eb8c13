"""Punctuated, short and repeated lines (FineWeb's own rules)."""

import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from data_curation.rules.repetition import duplicates
from data_curation.rules.rule import Scores
from data_curation.settings import Settings

if TYPE_CHECKING:
    from data_curation.rules.text import Batch, Text

_BREAKS = re.compile(r"\n+")


class FineWebConfig(Settings):
    """FineWeb's rules (Penedo et al. 2024, section 3.6), judged on what the rules before left of a document."""

    MEASURES: ClassVar[frozenset[str]] = frozenset(("short_line",))

    min_punctuated_lines: float = 0.12
    """Least share of lines that end with punctuation."""
    max_short_lines: float = 0.67
    """Largest share of short lines."""
    short_line: int = Field(default=30, ge=0)
    """Characters up to which a line is short."""
    max_repeated_lines: float = 0.01
    """Largest share of characters in lines that stood before."""
    max_line_breaks: float = 0.3
    """Most line breaks per word."""

    def measure(self, batch: "Batch", full: bool) -> Sequence[dict[str, Any]]:
        """Shares of each text; line breaks may be counted against chunks in place of words, unless `full`."""
        scores = list[dict[str, Any]]()
        for index, text in enumerate(batch.texts):
            if not (full or text.live):
                scores.append({})
                continue
            judged = _BREAKS.sub("\n", text.left)  # its shares were set on text without blank lines
            lines = [line for line in judged.split("\n") if line and not line.isspace()]
            scores.append(self._shares(lines, judged))
            breaks = judged.count("\n")
            if lines and (full or breaks > self.max_line_breaks * sum(map(len, map(str.split, lines)))):
                scores[-1]["line_breaks"] = breaks / batch.words_left(index)
        return scores

    def judge(self, scores: Scores) -> str:
        """The first rule that is broken, in datatrove's order."""
        if "lines" not in scores:
            return ""
        if not scores["lines"]:
            return "empty"
        if scores["punctuated_lines"] < self.min_punctuated_lines:
            return "line-punct-ratio"
        if scores["short_lines"] > self.max_short_lines:
            return "short-line-ratio"
        if scores["repeated_lines"] > self.max_repeated_lines:
            return "char-dup-ratio"
        return "list-ratio" if scores.get("line_breaks", 0) > self.max_line_breaks else ""

    def passage(self, text: "Text", reason: str) -> str:
        """The lines that are short, stood before or have no punctuation."""
        lines = [line for line in text.left.split("\n") if line.strip()]
        if reason == "char-dup-ratio":
            seen = set[str]()
            return "\n".join(line for line in lines if line in seen or seen.add(line))
        if reason == "line-punct-ratio":
            return "\n".join(line for line in lines if line[-1] not in _stops())
        return "\n".join(line for line in lines if len(line) <= self.short_line)

    def _shares(self, lines: list[str], judged: str) -> dict[str, Any]:
        if not lines:
            return {"lines": 0}
        stops, short = _stops(), self.short_line
        again = duplicates(lines)[1]
        return {
            "lines": len(lines),
            "punctuated_lines": sum([line[-1] in stops for line in lines]) / len(lines),
            "short_lines": sum([len(line) <= short for line in lines]) / len(lines),
            "repeated_lines": again / (len(judged) - judged.count("\n")),
        }


@cache
def _stops() -> frozenset[str]:
    from datatrove.utils.text import TERMINAL_PUNCTUATION

    return frozenset(TERMINAL_PUNCTUATION)
