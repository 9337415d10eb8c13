"""The words that documents are compared by: lower case, no punctuation, with their places in the text."""

import re
import unicodedata
from collections.abc import Sequence

ALONE = ("\u0e00\u0eff", "\u1000\u109f", "\u3040\u30ff", "\u3400\u4dbf", "\u4e00\u9fff", "\uf900\ufaff")
"""First and last sign of the scripts written without spaces: these count character by character."""
MARKS = "\u0300\u036f"
"""First and last accent: an accent may follow its letter as a mark of its own."""
SPLIT = (*ALONE, MARKS)
"""Where these occur, words are not simply the runs of letters and digits."""
_WORD = re.compile(f"[{''.join(f'{low}-{high}' for low, high in ALONE)}]|[^\\W_](?:[^\\W_]|[{MARKS[0]}-{MARKS[1]}])*")
WORDS = 1
"""Version of the rule by which texts are folded and split: hashes of words are of use to the same version only."""


def fold(text: str) -> str:
    """Lower case with composed accents; spaces as they were."""
    return unicodedata.normalize("NFC", text).lower()


def normal(text: str) -> str:
    """Lower case, composed accents, single spaces."""
    return " ".join(fold(text).split())


def words(text: str) -> list[str]:
    """The compared words of a text."""
    return _WORD.findall(fold(text))


def folded_words(text: str) -> list[str]:
    """The compared words of a text that is folded already; no word spans a space."""
    return _WORD.findall(text)


def placed_words(text: str) -> tuple[list[str], list[tuple[int, int]]]:
    """The compared words and where each stands in `text` itself (first character, one past the last)."""
    # Each word is folded for itself: folding the whole text could move the places.
    found = list(_WORD.finditer(text))
    return [fold(match.group()) for match in found], [match.span() for match in found]


def shingles(listed: Sequence[str], size: int) -> list[str]:
    """All runs of `size` words; the whole text where it is shorter, nothing where it is empty."""
    if len(listed) <= size:
        return [" ".join(listed)] if listed else []
    return [" ".join(listed[start : start + size]) for start in range(len(listed) - size + 1)]
