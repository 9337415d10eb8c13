"""The characters of a page whose encoding is declared rightly, wrongly or not at all."""

import codecs
import re

_DECLARED = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_WIDE = ("utf-16", "utf-32")
_ESCAPED = ("iso2022_jp", "iso2022_kr", "iso2022_jp_2", "iso2022_jp_ext")
_ASCII = bytes(range(128))
_PLAIN = rb"<p>+ADw-p+AD4- ~{\x3c\u003c~} &amp;</p>"
"""Reads as it stands in every encoding of pages, but not in all codecs of Python."""
_FOREIGN = 0.05
"""Bytes beyond ASCII, of all of a page, above which it is hardly in a language with Latin letters."""
_DAMAGE = 0.1
"""Broken characters among those beyond ASCII above which a page is not UTF-8 at all, whatever it says."""


def decode(html: bytes, charset: str | None) -> str:
    """The text of a page. `charset` is what the server said.

    Bytes that are valid UTF-8 are UTF-8, since other text hardly ever passes. Otherwise the server's word counts, then
    the page's, and a look at the bytes where both are silent, unknown or impossible.
    """
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    for mark, name in _MARKS:
        if html.startswith(mark):
            return html[len(mark) :].decode(name, "replace")
    if b"\0" in html[:64] and (wide := _two_bytes(html[:64])):
        return html.decode(wide, "replace")
    if html.isascii() and b"\x1b$" in html:
        return bytes_to_str(html, next((name for name in _labels(html, charset) if name in _ESCAPED), "iso2022_jp"))
    try:
        return html.decode()
    except UnicodeDecodeError:
        pass
    said, declared = _labels(html, charset)
    # Servers send Latin-1 by default for whatever they hold, so a page that says otherwise knows better.
    label = declared if declared and said in ("", "cp1252") else said
    if label == "utf-8":
        text = html.decode("utf-8", "replace")
        if text.count("\ufffd") < _DAMAGE * (len(text) - len(text.encode("ascii", "ignore"))):
            return text
        label = ""
    if not label or label.startswith(_WIDE):
        label = detect_encoding(html) or "cp1252"
    elif label == "cp1252" and len(html.translate(None, _ASCII)) > _FOREIGN * len(html):
        seen = detect_encoding(html)  # far too many accents for Latin letters: the label is a default again
        if seen == "cp1251" or (seen and not seen.startswith(("cp125", "iso8859", "utf-8"))):
            label = seen
    return bytes_to_str(html, label)


def _labels(html: bytes, charset: str | None) -> tuple[str, str]:
    """What the server and the page say."""
    found = _DECLARED.search(html, 0, 1024)
    return _label(charset), _label(found[1].decode("ascii", "replace")) if found else ""


def _label(name: str | None) -> str:
    """The codec that browsers take for a name, empty if there is none."""
    from resiliparse.parse.encoding import map_encoding_to_html5

    if not name:
        return ""
    known = map_encoding_to_html5(name, False)
    try:
        if not known and _PLAIN.decode(name) != _PLAIN.decode("ascii"):
            return ""
        return codecs.lookup(known or name).name
    except (LookupError, ValueError):
        return ""  # servers make names up


def _two_bytes(start: bytes) -> str:
    """UTF-16 without a mark shows in the zeros between ASCII letters."""
    even, odd = start[0::2].count(0), start[1::2].count(0)
    if max(even, odd) < len(start) // 4:
        return ""
    return "utf-16-be" if even > odd else "utf-16-le"
