"""What a family of rules is: it measures texts, and judges scores, so that thresholds can be asked again."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from data_curation.settings import ConfigError

if TYPE_CHECKING:
    from data_curation.rules.text import Batch, Text

Scores = Mapping[str, Any]
"""What rules measured of one document, by name: counts as whole numbers, shares from 0 up."""
DIGITS = 9
"""Decimals of stored shares: enough to judge texts of 10 million characters as the unrounded ones would be."""


class Rule(Protocol):
    """A section of the settings that judges documents."""

    MEASURES: ClassVar[frozenset[str]]
    """Fields that change what is measured, or what is left of a text; all others are thresholds of what was."""

    def measure(self, batch: "Batch", full: bool) -> Sequence[dict[str, Any]]:
        """Scores of every text of the batch.

        Unless `full`, a bound may stand for a score that it settles, and a text that already fails may lack the rest.
        """
        ...

    def judge(self, scores: Scores) -> str:
        """The reason why a document with these scores goes, or nothing. A missing score never drops."""
        ...

    def passage(self, text: "Text", reason: str) -> str:
        """The part of the text that the reason speaks of, or nothing."""
        ...


def given_file(setting: str, uri: str) -> str:
    """Hex sha256 of a file that a setting names; ConfigError where it cannot be read."""
    from data_curation.files import sha256_file

    try:
        return sha256_file(uri)
    except OSError as error:
        raise ConfigError(f"{setting}: {uri} cannot be read ({error}): name a text file") from None


def rounded(scores: Scores) -> dict[str, Any]:
    """Scores as they are stored."""
    return {name: round(value, DIGITS) if isinstance(value, float) else value for name, value in scores.items()}


def first(scores: Scores, bounds: Sequence[tuple[str, float, str]]) -> str:
    """The reason of the first (score, most, reason) whose score lies above."""
    for name, most, reason in bounds:
        if scores.get(name, 0) > most:
            return reason
    return ""
