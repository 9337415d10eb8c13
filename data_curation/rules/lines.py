"""Lines that are no prose taken out: shouting, numbers, counters (RefinedWeb's line-wise corrections)."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from data_curation.rules.rule import Scores
from data_curation.settings import Settings

if TYPE_CHECKING:
    from data_curation.rules.text import Batch, Text

_COUNTER = re.compile(
    r"\W*\d[\d.,]*[kmb]?\W+(?:likes?|shares?|comments?|retweets?|reposts?|quotes?|bookmarks?|up ?votes?|down ?votes?"
    r"|downloads?|views?|followers?)\W*",
    re.IGNORECASE,
)


class LinesConfig(Settings):
    """RefinedWeb's line rules (Penedo et al. 2023, appendix G.2)."""

    MEASURES: ClassVar[frozenset[str]] = frozenset(("max_capitals", "numbers", "counters"))

    max_capitals: float = Field(default=0.5, gt=0)
    """Lines with a larger share of capitals among their letters are taken out."""
    numbers: bool = True
    """Take out lines without a letter."""
    counters: bool = True
    """Take out lines such as `3 likes`."""
    max_removed: float = 0.05
    """Documents that lose a larger share of their words (runs between spaces) are dropped."""

    def measure(self, batch: "Batch", full: bool) -> Sequence[dict[str, Any]]:
        """The share of words that each text loses; the lines are marked in the batch."""
        return [self._measure(batch, at) if full or text.live else {} for at, text in enumerate(batch.texts)]

    def judge(self, scores: Scores) -> str:
        """Whether too many words were in such lines."""
        return "removed-lines" if scores.get("removed_words", 0) > self.max_removed else ""

    def passage(self, text: "Text", reason: str) -> str:
        """The lines."""
        return "\n".join(line for line in text.lines if self._is_out(line))

    def _measure(self, batch: "Batch", index: int) -> dict[str, Any]:
        text, part = batch.texts[index], batch.lines_of(index)
        out = [bool(line) and self._is_out(line) for line in text.lines]
        if not any(out):
            return {"removed_words": 0.0}
        batch.line_kept[part] &= [not one for one in out]
        batch.leave(index, [None if gone else line for line, gone in zip(text.lines, out, strict=True)])
        return {"removed_words": int(batch.line_chunks[part][out].sum()) / max(1, text.chunks)}

    def _is_out(self, line: str) -> bool:
        letters = sum(map(str.isalpha, line))
        if not letters:
            return self.numbers and any(map(str.isdigit, line))
        if sum(map(str.isupper, line)) / letters > self.max_capitals:
            return True
        return self.counters and line[:1] < "A" and _COUNTER.fullmatch(line) is not None
