"""Pages without the code in their scripts and styles, which parser and extractor would only carry along."""

import re
from itertools import pairwise
from typing import NamedTuple

_SHORT = 2**15
"""Bytes up to which a page has too little code to look for."""
_APART = 60
"""Bytes from one tag to the next up to which a page is markup: it has a fiftieth of the code of the labelled pages."""
_FEW = 512
"""Bytes between the two tags of an element up to which nothing is gained by cutting them."""
_OPENS = re.compile(rb"<(script|style)[\s/>]", re.IGNORECASE)
_ENDS = re.compile(rb"</(script|style)[\s/>]", re.IGNORECASE)
_DATA = b"ld+json"
"""Type of scripts that hold data: trafilatura reads articles from them."""


class Lean(NamedTuple):
    """A page that says what it said, with less to read."""

    html: bytes
    cut: int
    """Bytes of code that are missing."""


def lean(page: bytes) -> Lean:
    """The page with its scripts and styles emptied; their tags stay, since resiliparse looks at neighbours.

    An element is left as it is where another one seems to begin in it: its end is not surely the next end tag.
    """
    if len(page) <= _SHORT:
        return Lean(page, 0)
    parts: list[bytes] = []
    at = 0
    for start, end in pairwise(_tags(page)):
        if end - start <= _FEW or not (opened := _OPENS.match(page, start)) or not (closed := _ENDS.match(page, end)):
            continue
        if opened[1].lower() == closed[1].lower() and page.find(_DATA, start, start + _FEW) < 0:
            parts += page[at:start], b"<", opened[1], b">"
            at = end
    parts.append(page[at:])
    html = b"".join(parts)
    return Lean(html, len(page) - len(html))


def _tags(page: bytes) -> list[int]:
    """Where something begins that may be a tag, of start or end, of a script or a style; nowhere in mere markup."""
    import numpy as np

    data = np.frombuffer(page, np.uint8)
    signs = data[:-4] == ord("<")  # four bytes behind it tell what it begins
    if np.count_nonzero(signs) * _APART > len(page):
        return []
    at = np.flatnonzero(signs)
    behind = np.ndarray(len(data) - 3, "<u4", page, strides=(1,))[at + 1] | 0x20202020  # in small letters
    found = np.zeros(len(at), bool)
    for name in (b"scri", b"/scr", b"styl", b"/sty"):
        found |= behind == int.from_bytes(name, "little")
    return at[found].tolist()
