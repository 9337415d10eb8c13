"""The words that documents are compared by: lower case, no punctuation, with their places in the text."""

import re
import unicodedata
from collections.abc import Sequence

# Scripts written without spaces count character by character; accents may follow their letter as a mark of their own.
_WORD = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\W_](?:[^\W_]|[\u0300-\u036f])*"
)


def normal(text: str) -> str:
    """Lower case, composed accents, single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).lower().split())


def words(text: str) -> list[str]:
    """The compared words of a text."""
    return _WORD.findall(unicodedata.normalize("NFC", text).lower())


def placed_words(text: str) -> tuple[list[str], list[tuple[int, int]]]:
    """The compared words and where each stands in `text` itself (first character, one past the last)."""
    # Each word is folded for itself: folding the whole text could move the places.
    found = list(_WORD.finditer(text))
    return [unicodedata.normalize("NFC", match.group()).lower() for match in found], [match.span() for match in found]


def shingles(listed: Sequence[str], size: int) -> list[str]:
    """All runs of `size` words; the whole text where it is shorter, nothing where it is empty."""
    if len(listed) <= size:
        return [" ".join(listed)] if listed else []
    return [" ".join(listed[start : start + size]) for start in range(len(listed) - size + 1)]
