"""The text of one HTML page, with guards against pages that would take too long."""

import re
from dataclasses import dataclass
from typing import Any

from data_curation import boilerplate
from data_curation.html_blocks import Block, read_blocks, render
from data_curation.html_cost import estimate, harmless
from data_curation.html_decode import decode
from data_curation.html_lean import Lean, lean
from data_curation.html_sandbox import SANDBOX

MAX_BYTES = 4 * 2**20
MAX_DEPTH = 512
MAX_SECONDS = 5.0
"""A page whose extraction is estimated to take longer is dropped before anything is parsed."""
MAIN_SHARE = 0.35
"""Where less than this share of a page's paragraphs is kept, its body has probably been lost: ask trafilatura."""

_SMALL = 24 * 2**10
"""Characters of markup up to which a page has no room for much furniture."""
_SCRIPTS = 3
"""Scripts from which a page may have much furniture: labelled news pages have 6 or more, large manuals 2 at most."""
_BODY, _MUCH = 600, 0.2
"""Characters of text, and share of the markup, between which the main blocks of a large page are surely its body."""
_DENSE = 0.25
"""Share of the markup that is text, above which a page has little furniture."""
_CAREFUL = 2**19
"""Characters of markup above which trafilatura is not asked: it takes seconds there."""
_HEAD = 2**13
"""Characters from the start in which a language is declared."""
_BLANK_LINES = re.compile(r"\n{3,}")
_ROOT = re.compile(r"<html\b[^>]*?\s(?:xml:)?lang\s*=\s*[\"']?([\w-]+)", re.IGNORECASE)
_CONTENT = re.compile(r"\bcontent\s*=\s*[\"']?\s*([\w-]+)", re.IGNORECASE)
_LANGUAGE = re.compile(r"[a-zA-Z]{2,3}(?:[-_][a-zA-Z0-9]+)*")
_LINE_END = re.compile(r"\r\n?|[\u2028\u2029\x85]")
# NUL and the other control characters, and halves of surrogate pairs.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_CONTROLS = bytes(set(range(32)) - set(b"\t\n")) + b"\x7f"


@dataclass(frozen=True)
class Extracted:
    """What came out of a page: text with blank lines between paragraphs, or the reason why nothing did."""

    text: str = ""
    title: str = ""
    languages: tuple[str, ...] = ()
    """Languages that the page itself declares, as written there."""
    reason: str = ""
    """Empty, or why the page is dropped: empty, too-large, too-deep, too-complex, too-slow, no-text,
    not-parsable."""


def extract_html(
    html: bytes,
    url: str | None,
    *,
    charset: str | None = None,
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
    main_share: float = MAIN_SHARE,
) -> Extracted:
    """The text of a page without its furniture.

    `charset` is what the server said. Pages above `max_bytes` are dropped, and of those with many tags or attributes
    the ones that nest deeper than `max_depth` or are estimated to take longer than `MAX_SECONDS`. What is left of these
    is taken in a sandbox, because a page can be built to deceive the estimate. Where hardly any text is left, and less
    than `main_share` of what the page's paragraphs hold, trafilatura is asked.
    """
    if not html or html.isspace():
        return Extracted(reason="empty")
    if len(html) > max_bytes:
        return Extracted(reason="too-large")
    page = lean(html)
    if harmless(page.html):
        return take(page, url, charset, main_share)
    plain = page.html if b"\0" not in html else decode(page.html, charset).encode()
    cost = estimate(plain, max_depth, MAX_SECONDS)
    if cost.depth > max_depth or cost.seconds > MAX_SECONDS:
        return Extracted(reason="too-deep" if cost.depth > max_depth else "too-complex")
    return SANDBOX.take(page, url, charset, main_share)


def take(page: Lean, url: str | None, charset: str | None, main_share: float) -> Extracted:
    """The text of a page, however long it takes; neither parser nor extractor can be interrupted."""
    from resiliparse.parse.html import HTMLTree

    source = decode(page.html, charset)
    try:
        tree = HTMLTree.parse(source)
        text = _text(tree, source, len(source) + page.cut, url, main_share)
    except RuntimeError:  # which the parser's own exception is
        return Extracted(reason="not-parsable")
    if not text:
        return Extracted(reason="no-text")
    return Extracted(text, " ".join(_printable(tree.title or "").split()), _languages(source))


def _text(tree: Any, source: str, markup: int, url: str | None, main_share: float) -> str:
    """The text of a page with much furniture from the engine's main blocks, of any other from all of its blocks.

    A look at either takes as long as parsing, so most pages get one only: all blocks where a page is small or has few
    scripts, the main ones elsewhere. Where those hold hardly any text, or a lot, the other look tells what the page is.
    """
    small = markup <= _SMALL
    scripted = not small and _scripted(tree)
    everything = [] if scripted else _blocks(tree, main=False)
    if small or _dense(everything, markup):
        return _tidy(render(boilerplate.manual(everything)))
    kept = boilerplate.article(_blocks(tree, main=True))
    size = sum(block.size for block in kept)
    if not everything and not _BODY < size < _MUCH * markup:
        everything = _blocks(tree, main=False)
        if _dense(everything, markup):
            return _tidy(render(boilerplate.manual(everything)))
    body = main_share * boilerplate.prose(everything)
    if not size or (size < min(_BODY, body) and size < body - main_share * _comments(tree)):
        careful = _by_trafilatura(source, url) if markup <= _CAREFUL else ""
        return _tidy(careful if len(careful) > size else render(kept or everything))
    return _tidy(render(kept))


def _scripted(tree: Any) -> bool:
    """Whether a page has many scripts, which mostly its head tells, soon read."""
    parts = (tree.head, tree.document)
    return any(part is not None and len(part.get_elements_by_tag_name("script")) >= _SCRIPTS for part in parts)


def _comments(tree: Any) -> int:
    """The size of what readers of a page wrote below it, in the element that most makers of pages name alike."""
    found = tree.document.get_element_by_id("comments")
    return len(found.text or "") if found else 0


def _dense(everything: list[Block], markup: int) -> bool:
    """Whether so much of the markup is text that there is little furniture."""
    return sum(len(block.text) for block in everything) > _DENSE * markup


def _blocks(tree: Any, main: bool) -> list[Block]:
    from resiliparse.extract.html2text import extract_plain_text

    html = extract_plain_text(
        tree,
        preserve_formatting="minimal_html",
        main_content=main,
        links=True,
        alt_texts=False,
        comments=not main,
        post_meta=not main,
    )
    return read_blocks(html)


def _by_trafilatura(source: str, url: str | None) -> str:
    import trafilatura

    # deduplicate=True keeps state between pages: the text would depend on what the process saw before.
    text = trafilatura.extract(source, url=url, include_comments=False, deduplicate=False)
    # It ends every paragraph with one line break; two mark a paragraph everywhere else.
    return "\n\n".join((text or "").split("\n"))


def _languages(source: str) -> tuple[str, ...]:
    """What the root element and the head's `og:locale` and `content-language` declare, without repetition."""
    found = [_ROOT.search(source, 0, 4096)]
    for name in ("og:locale", "ontent-language", "ontent-Language"):
        at = source.find(name, 0, _HEAD)
        if at >= 0:
            found.append(_CONTENT.search(source, source.rfind("<", 0, at), source.find(">", at)))
    codes = [match[1] for match in found if match and _LANGUAGE.fullmatch(match[1])]
    return tuple(dict.fromkeys(codes))


def _tidy(text: str) -> str:
    """Printable text, no spaces at line ends, one blank line between paragraphs."""
    lines = _printable(text)
    if " \n" in lines or "\t\n" in lines or not lines.isascii():  # mostly ASCII text has none at line ends
        lines = "\n".join([line.rstrip() for line in lines.split("\n")])
    return (_BLANK_LINES.sub("\n\n", lines) if "\n\n\n" in lines else lines).strip()


def _printable(text: str) -> str:
    if not _is_printable(text):
        text = _UNPRINTABLE.sub("", _LINE_END.sub("\n", text))
    return text


def _is_printable(text: str) -> bool:
    """Whether nothing needs to be replaced, which nearly always is so and four times as fast to see."""
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return False
    return len(data.translate(None, _CONTROLS)) == len(data) and not any(sign in text for sign in "\u2028\u2029\x85")
