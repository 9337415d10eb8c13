"""The blocks of a page, read from resiliparse's minimal HTML, one per line of text."""

import re
from dataclasses import dataclass

HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_ALONE = HEADINGS | {"pre"}
_TAG = re.compile(r"<[^>]*>")
# A named anchor comes as <a href=""> without its end: only the text right after a real target is linked.
_LINKED = re.compile(r'<a href="[^"]+">([^<]*)')
_STOPS = ".!?:;\u2026\u3002\uff01\uff1f\u0964\u06d4"
_END = re.compile(rf"[{_STOPS}][\"'\u201d\u2019\u00bb)\]\u300d\u300f]*$")
_PROSE, _LINKED_TEXT = 80, 0.4
"""Size from which a block reads as a paragraph, and share of links from which it does not."""


@dataclass(slots=True)
class Block:
    """One line of text with the element that it came from."""

    text: str
    tag: str
    """h1 to h6, p, li, pre, or empty for text right in a division or a table."""
    size: int
    """Characters, or bytes of UTF-8 in a script of three bytes a character: those say more with one."""
    links: float
    """Share of the characters that are linked."""
    gap: bool
    """Whether a blank line stands before it."""
    bullet: str
    """Indent and mark of a list item."""
    ends: bool
    """Whether it ends as a sentence does."""
    heading: bool = False
    prose: bool = False
    """Whether it is long enough for a paragraph and not mostly linked."""


def read_blocks(html: str) -> list[Block]:
    """The blocks of what `extract_plain_text(..., preserve_formatting="minimal_html", links=True)` gave."""
    blocks: list[Block] = []
    lists: list[int] = []  # of the open lists, innermost last: the number of items so far, -1 without numbers
    code: list[str] = []
    gap, bullet = False, ""
    for line in html.split("\n"):
        if not line and not code:
            gap = True
            continue
        if code or "<pre>" in line:
            code.append(line)
            if "</pre>" in line:
                blocks.append(_code(code, gap))
                gap, code = False, []
            continue
        line = line.strip()
        if not line:
            gap = True
            continue
        tag = line[1 : line.find(">")] if line[0] == "<" else ""
        if tag in ("ul", "ol"):
            lists.append(0 if tag == "ol" else -1)
        elif tag == "li":
            bullet = _bullet(lists)
        block = _block(line, tag, gap, bullet)
        if block:
            blocks.append(block)
            gap, bullet = False, ""
        if lists and ("</ul>" in line or "</ol>" in line):
            del lists[-line.count("</ul>") - line.count("</ol>") :]
    if code:
        blocks.append(_code(code, gap))
    return blocks


def render(blocks: list[Block]) -> str:
    """Blocks as text: a blank line between paragraphs, list items and table rows line by line."""
    out: list[str] = []
    last = None
    for block in blocks:
        if last:
            apart = block.gap or last.tag in _ALONE or block.tag in _ALONE or (last.prose and block.prose)
            out.append("\n\n" if apart and not (block.bullet and last.bullet) else "\n")
        out.append(block.bullet + block.text)
        last = block
    return "".join(out)


def _block(line: str, tag: str, gap: bool, bullet: str) -> Block | None:
    text = line
    if "<" in line:
        if tag and line.endswith(end := f"</{tag}>"):
            text = line[len(end) - 1 : -len(end)]
        if "<" in text:
            text = _TAG.sub("", text)
    text = (_unescape(text) if "&" in text else text).strip()
    if not text:
        return None
    if tag not in HEADINGS and tag != "p":
        tag = "li" if bullet else ""
    size = length = len(text)
    links = sum(map(len, _LINKED.findall(line))) / length if "<a " in line else 0.0
    if not text.isascii() and (encoded := len(text.encode("utf-8", "replace"))) >= 2 * length:
        size = encoded
    last = text[-1]
    ends = last in _STOPS or (not last.isalnum() and _END.search(text, length - 4) is not None)
    return Block(text, tag, size, links, gap, bullet, ends, tag in HEADINGS, size >= _PROSE and links < _LINKED_TEXT)


def _unescape(text: str) -> str:
    """Text as it was before resiliparse escaped it."""
    return text.replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _code(lines: list[str], gap: bool) -> Block:
    text = _unescape(_TAG.sub("", "\n".join(lines))).strip("\n")
    return Block(text, "pre", len(text), 0.0, gap, "", ends=False, prose=len(text) >= _PROSE)


def _bullet(lists: list[int]) -> str:
    """The mark of the next item of the innermost list; -1 stands for a list without numbers."""
    if not lists:
        return "- "
    indent = "  " * (len(lists) - 1)
    if lists[-1] < 0:
        return f"{indent}- "
    lists[-1] += 1
    return f"{indent}{lists[-1]}. "
