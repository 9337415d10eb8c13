"""The text of one HTML page, with guards against pages that would take too long."""

import codecs
import re
from dataclasses import dataclass
from itertools import accumulate

MAX_BYTES = 4 * 2**20
MAX_DEPTH = 512
MAIN_SHARE = 0.35
"""Main content below this share of all text has probably lost the body (seen on 3% of pages): try trafilatura."""

_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
# Void elements, and those whose end tag may be left out: the parser never nests these without another in between.
_FLAT = re.compile(
    "area|base|br|col|embed|hr|img|input|link|meta|param|source|track|wbr|p|li|dt|dd|tr|td|th|thead|tbody|tfoot|option"
    "|optgroup|colgroup|rt|rp|html|head|body",
    re.IGNORECASE,
)
_META_CHARSET = re.compile(rb"charset\s*=", re.IGNORECASE)
_BLANK_LINES = re.compile(r"\n\s*\n")
_LANGUAGE = re.compile(r"[a-zA-Z]{2,3}(?:[-_][a-zA-Z0-9]+)*")


@dataclass(frozen=True)
class Extracted:
    """What came out of a page: text with blank lines between paragraphs, or the reason why nothing did."""

    text: str = ""
    title: str = ""
    languages: tuple[str, ...] = ()
    """Languages that the page itself declares, as written there."""
    reason: str = ""
    """Empty, or why the page is dropped: empty, too-large, too-deep, no-text, not-parsable."""


def extract_html(
    html: bytes,
    url: str | None,
    *,
    charset: str | None = None,
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
    main_share: float = MAIN_SHARE,
) -> Extracted:
    """Main text of a page by resiliparse; by trafilatura where that leaves less than `main_share` of all text.

    `charset` is what the server said. Pages above `max_bytes` or nested deeper than `max_depth` are dropped.
    """
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    if not html.strip():
        return Extracted(reason="empty")
    if len(html) > max_bytes:
        return Extracted(reason="too-large")
    source = _decode(html, charset)
    if _depth(source) > max_depth:
        return Extracted(reason="too-deep")
    try:
        tree = HTMLTree.parse(source)
        text = extract_plain_text(tree, main_content=True, preserve_formatting=True)
        everything = extract_plain_text(tree, main_content=False, preserve_formatting=False)
    except (RuntimeError, ValueError):  # the parser's own exception is a RuntimeError
        return Extracted(reason="not-parsable")
    if len(text) < main_share * len(everything):
        text = _by_trafilatura(source, url) or text
    text = _tidy(text)
    if not text:
        return Extracted(reason="no-text")
    root = tree.document.query_selector("html") if tree.document else None
    declared = (root.getattr("lang") or root.getattr("xml:lang") or "") if root else ""
    languages = (declared,) if _LANGUAGE.fullmatch(declared) else ()
    return Extracted(text, " ".join(_printable(tree.title or "").split()), languages)


def _depth(source: str) -> int:
    """An upper estimate of how deep elements nest; extraction takes time quadratic in it."""
    steps = (-1 if close else 1 for close, name in _TAG.findall(source) if not _FLAT.fullmatch(name))
    return max(accumulate(steps), default=0)


def _decode(html: bytes, charset: str | None) -> str:
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    if charset:
        try:
            return bytes_to_str(html, codecs.lookup(charset).name)
        except LookupError:
            pass  # servers make names up: look at the page instead
    if not _META_CHARSET.search(html[:1024]):
        try:
            return html.decode("utf-8-sig")  # strict: text that is not UTF-8 hardly ever passes
        except UnicodeDecodeError:
            pass
    return bytes_to_str(html, detect_encoding(html, from_html_meta=True) or "utf-8")


def _by_trafilatura(source: str, url: str | None) -> str:
    import trafilatura

    # deduplicate=True keeps state between pages: the text would depend on what the process saw before.
    text = trafilatura.extract(source, url=url, include_comments=False, deduplicate=False)
    # It ends every paragraph with one line break; two mark a paragraph everywhere else.
    return "\n\n".join((text or "").split("\n"))


def _tidy(text: str) -> str:
    """Printable text, no spaces at line ends, one blank line between paragraphs."""
    lines = "\n".join(line.rstrip() for line in _printable(text).split("\n"))
    return _BLANK_LINES.sub("\n\n", lines).strip()


def _printable(text: str) -> str:
    # Line ends of other systems, NUL and the other control characters, and halves of surrogate pairs.
    plain = re.sub(r"\r\n?|\u2028|\u2029|\x85", "\n", text)
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]", "", plain)
