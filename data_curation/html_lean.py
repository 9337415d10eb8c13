"""Pages without what their scripts, styles and drawings hold, which parser and extractor would only carry along."""

import re
from itertools import pairwise
from typing import NamedTuple

_SHORT = 2**15
"""Bytes up to which a page has too little to cut to look for it."""
_APART = 60
"""Bytes from one tag to the next up to which a page is markup: it has a fiftieth of the code of the labelled pages."""
_FEW = 256
"""Bytes between the two tags of an element up to which nothing is gained by cutting them."""
_OPENS = re.compile(rb"<(script|style|svg)[\s/>]", re.IGNORECASE)
_ENDS = re.compile(rb"</(script|style|svg)[\s/>]", re.IGNORECASE)
_BREAKS = re.compile(rb"</(?:p(?!ath|oly|attern)|div)")
"""What ends a drawing without its tag; `path`, `polygon`, `polyline` and `pattern` are parts of drawings."""
_SLASH = ord("/")
_NAMES = (b"scri", b"/scr", b"styl", b"/sty", b"svg ", b"svg>", b"/svg")


class Lean(NamedTuple):
    """A page that says what it said, with less to read."""

    html: bytes
    cut: int
    """Bytes that are missing."""


def lean(page: bytes) -> Lean:
    """The page with its scripts, styles and drawings emptied; tags stay, since resiliparse looks at neighbours.

    An element goes from its tag to the next one of these kinds, which must be its own end, so that none of another is
    cut with it.
    """
    if len(page) <= _SHORT:
        return Lean(page, 0)
    parts: list[bytes] = []
    at = 0
    for start, end in pairwise(_tags(page)):
        if end - start <= _FEW or page[start + 1] == _SLASH:
            continue
        if not (opened := _OPENS.match(page, start)) or not (closed := _ENDS.match(page, end)):
            continue
        if opened[1].lower() == closed[1].lower() and not _says(page, start, end, opened[1].lower()):
            parts += page[at:start], b"<", opened[1], b">"
            at = end
    parts.append(page[at:])
    html = b"".join(parts)
    return Lean(html, len(page) - len(html))


def _says(page: bytes, start: int, end: int, name: bytes) -> bool:
    """Whether it holds text: data in which trafilatura finds articles, or elements that end a drawing without a tag."""
    if name == b"svg":
        return _BREAKS.search(page, start, end) is not None
    return page.find(b"ld+json", start, start + _FEW) >= 0


def _tags(page: bytes) -> list[int]:
    """Where something begins that may be a tag of these kinds, of start or end; nowhere in mere markup."""
    import numpy as np

    data = np.frombuffer(page, np.uint8)
    signs = data[:-4] == ord("<")  # four bytes behind it tell what it begins
    if np.count_nonzero(signs) * _APART > len(page):
        return []
    at = np.flatnonzero(signs)
    behind = np.ndarray(len(data) - 3, "<u4", page, strides=(1,))[at + 1] | 0x20202020  # in small letters
    found = np.zeros(len(at), bool)
    for name in _NAMES:
        found |= behind == int.from_bytes(name, "little")
    return at[found].tolist()
