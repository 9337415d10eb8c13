"""How deep a page nests and how long its extraction may take, estimated before anything is parsed."""

import re
from functools import cache
from typing import Any, NamedTuple

_NESTS, _REOPENS, _FLAT, _OPTION, _MERGES = range(5)
_KINDS = {
    # The parser opens these again in each block until they are closed: n open ones in m blocks make n * m nodes.
    _REOPENS: "b big code em font i nobr s small strike strong tt u",
    # Void elements, and those that close an open one of their kind: they never nest without another in between.
    _FLAT: "a area base br col colgroup embed hr img input link meta param source track wbr p li dt dd tr td th thead "
    "tbody tfoot rt rp",
    _OPTION: "option optgroup",
    _MERGES: "html body",  # a second one only adds its attributes to the first
}
# Seconds a unit, measured with resiliparse 2.0 (lexbor) on pages that grow in one of these only.
_SECONDS_TAG, _SECONDS_NESTED, _SECONDS_REOPENED, _SECONDS_OPTION, _SECONDS_ATTRIBUTE, _SECONDS_TEXT = (
    1.2e-5,
    3.5e-8,
    1.5e-6,
    3.5e-9,
    2e-9,
    3.2e-9,
)
_QUICK = 0.5
"""Seconds that need no closer look."""
_LONG_TAG = 2**14
"""Bytes from one tag to the next below which its attributes cost nothing that counts."""

_FEW_TAGS, _FEW_ATTRIBUTES, _LITTLE_TEXT = 3_000, 65_000, 1_500_000_000
"""Start tags, attributes, and bytes of a page times its start tags, up to which it takes six seconds at most: of n tags
no more than half can be opened again in each of the other half."""

_VALUE = re.compile(rb"""=\s*(?:"[^"]*"|'[^']*')""")
_RAW = re.compile(rb"<(?:(!--)|(script|style|svg)\b)", re.IGNORECASE)
_EMPTY = re.compile(rb"<[a-zA-Z][^<>]*/>")


class Cost(NamedTuple):
    """Upper estimates of what a page asks of the parser and the extractor."""

    depth: int
    """Elements in each other."""
    seconds: float
    """Time of parsing, extraction and decisions."""


def harmless(page: bytes) -> bool:
    """Whether a page has so few tags and attributes that it takes seconds at most, however they are nested."""
    import numpy as np

    data = np.frombuffer(page, np.uint8)
    tags = np.count_nonzero(data == ord("<"))
    if tags > _FEW_TAGS:
        tags = page.count(b"<") - page.count(b"</")
    if tags > _FEW_TAGS or tags * len(page) > _LITTLE_TEXT:
        return False
    if len(page) <= 2 * _FEW_ATTRIBUTES:  # with what stands before it, none is shorter than two bytes
        return True
    # Before an attribute stand spaces or slashes, or a value, which follows an equals sign.
    apart = (data <= ord(" ")) | (data == ord("/"))
    return int(np.count_nonzero(apart[1:] > apart[:-1]) + np.count_nonzero(data == ord("="))) <= _FEW_ATTRIBUTES


def estimate(page: bytes, max_depth: int, max_seconds: float) -> Cost:
    """The cost of a page; what scripts, comments and drawings hold counts only as long as no limit is passed."""
    found = _estimate(page)
    if found.depth > max_depth or found.seconds > max_seconds:
        found = _estimate(_without_raw(page))
    return found


def _estimate(page: bytes) -> Cost:
    import numpy as np

    data = np.frombuffer(page, np.uint8)
    at = np.flatnonzero(data[:-4] == ord("<"))  # four bytes behind it tell what it begins
    if not len(at):
        return Cost(0, 0.0)
    behind = np.ndarray(len(data) - 3, "<u4", page, strides=(1,))[at + 1]
    ends = (behind & 0xFF) == ord("/")
    codes = _codes(np.where(ends, behind >> 8, behind))
    kinds = _kind_of_code()[codes]
    steps = np.where(ends, np.int32(-1), np.int32(1)) * (kinds <= _REOPENS)
    _ignore_stray_ends(codes, steps)
    depth, formatting = _level(steps), kinds == _REOPENS
    seconds = _SECONDS_TAG * int(np.count_nonzero(~ends))
    seconds += _SECONDS_NESTED * float(depth.sum())
    if _SECONDS_REOPENED * np.count_nonzero(formatting) * len(steps) > _QUICK:
        seconds += _SECONDS_REOPENED * float(_level(steps * formatting).sum())
    seconds += _SECONDS_OPTION * float(np.count_nonzero((kinds == _OPTION) & ~ends)) ** 2
    lengths = np.diff(at, append=len(data))
    seconds += _SECONDS_TEXT * float(depth @ lengths)  # every division's text is read to see how much of it is linked
    for tag in np.flatnonzero(lengths > _LONG_TAG).tolist():
        seconds += _SECONDS_ATTRIBUTE * _attributes(page[at[tag] : at[tag] + lengths[tag]]) ** 2
    merged = lengths[(kinds == _MERGES) & ~ends]
    if len(merged) > 16:  # an attribute takes four bytes or more
        seconds += _SECONDS_ATTRIBUTE * (int(merged.sum()) / 4) ** 2
    return Cost(int(depth.max()), seconds)


def _codes(names: Any) -> Any:
    """A number below 2**15 for the first three letters of each name, 0 for what is none; case does not matter.

    A name lies in the low three bytes. Bit 6 tells letters from the signs that may follow a name.
    """
    first, second, third = names >> 6 & 1, names >> 14 & 1, names >> 22 & 1
    third &= second
    return first * ((names & 31) << 10 | second * (names >> 8 & 31) << 5 | third * (names >> 16 & 31))


@cache
def _kind_of_code() -> Any:
    import numpy as np

    table = np.full(2**15, _NESTS, np.int8)
    table[0] = _FLAT
    for kind, names in _KINDS.items():
        words = [int.from_bytes(name.encode()[:3], "little") for name in names.split()]
        table[_codes(np.array(words, np.uint32))] = kind
    return table


def _ignore_stray_ends(codes: Any, steps: Any) -> None:
    """Take back, in place, the end tags of elements that are not open."""
    import numpy as np

    for code in np.flatnonzero(np.bincount(codes, weights=steps) < 0).tolist():
        mine = np.flatnonzero(codes == code)
        steps[mine] = np.diff(_level(steps[mine]), prepend=0)


def _level(steps: Any) -> Any:
    """How many are open after each step, where an end tag without a start does nothing."""
    import numpy as np

    total = np.cumsum(steps)
    return total if total.min() >= 0 else total - np.minimum(np.minimum.accumulate(total), 0)


def _attributes(text: bytes) -> int:
    """At most so many attributes has the tag that a text begins with."""
    tag = text[: text.find(b">")]
    if len(tag) > _LONG_TAG or tag.count(b'"') % 2 or tag.count(b"'") % 2:  # with an odd one that end is in a value
        tag = _VALUE.sub(b"=", text)
        tag = tag[: tag.find(b">")]
    return len(re.split(rb"[\s/=]+", tag))


def _without_raw(page: bytes) -> bytes:
    """The page without scripts, styles and comments, and without the empty elements of drawings."""
    parts: list[bytes] = []
    at = 0
    while found := _RAW.search(page, at):
        name = found[2].lower() if found[2] else b""
        end = page.find(b"</" + name if name else b"-->", found.end())
        if end < 0:
            break
        parts.append(page[at : found.start()])
        if name == b"svg":
            parts.append(_EMPTY.sub(b"", page[found.start() : end]))
        at = end
    return b"".join(parts) + page[at:]
