"""Guarantees of decoding: right letters, whoever tells the encoding and whether or not it is told rightly."""

import pytest

from data_curation.html_decode import decode
from tests.data_curation.prose import text

GERMAN, RUSSIAN = text(1, "de"), "Старый садовник починил новые часы. " * 20
JAPANESE = "古い橋のそばで庭師は新しい時計を直した。" * 20


@pytest.mark.parametrize(
    ("body", "codec", "declared", "charset"),
    [
        (GERMAN, "utf-8", None, None),
        (GERMAN, "utf-8", "iso-8859-1", "iso-8859-1"),
        (GERMAN, "utf-8", "utf-8", "iso-8859-1"),
        (GERMAN, "utf-8", None, "no-such-codec"),
        (GERMAN, "utf-8-sig", None, "windows-1252"),
        (GERMAN, "latin-1", "iso-8859-1", None),
        (GERMAN, "latin-1", None, "iso-8859-1"),
        (GERMAN, "latin-1", "utf-8", "utf-8"),
        (GERMAN, "cp1252", None, None),
        (GERMAN, "utf-16", None, "utf-16"),
        (GERMAN, "utf-16-le", None, None),
        (GERMAN, "utf-16-be", None, "utf-8"),
        (RUSSIAN, "cp1251", None, "iso-8859-1"),
        (RUSSIAN, "cp1251", "windows-1251", "iso-8859-1"),
        (RUSSIAN, "koi8-r", "utf-8", None),
        (RUSSIAN, "utf-8", "windows-1251", None),
        (JAPANESE, "shift_jis", "Shift_JIS", None),
        (JAPANESE, "shift_jis", None, "iso-8859-1"),
        (JAPANESE, "euc_jp", None, None),
        (JAPANESE, "iso2022_jp", "iso-2022-jp", None),
        (JAPANESE, "iso2022_jp", None, "utf-8"),
    ],
)
def test_letters_are_right(body: str, codec: str, declared: str | None, charset: str | None) -> None:
    """Server and page may say the right encoding, a wrong one, one that does not exist, or nothing."""
    meta = f'<meta charset="{declared}">' if declared else ""
    html = f"<html><head>{meta}</head><body><p>{body}</p></body></html>"
    assert decode(html.encode(codec), charset) == html


@pytest.mark.parametrize("name", ["base64", "undefined", "utf-7", "cp037", "unicode_escape", "utf-32", "hz", "a\0b"])
def test_codecs_that_are_no_encoding_of_pages_are_ignored(name: str) -> None:
    """Codecs of Python that no browser knows change no page: letters stay, and no tag comes out of other signs."""
    html = f"<html><body><p>{GERMAN}</p>+ADw-div+AD4- \\x3cdiv\\x3e \\u003cdiv\\u003e</body></html>"
    assert decode(html.encode("cp1252"), name) == html


def test_a_few_broken_bytes_do_not_change_the_encoding() -> None:
    """A page of UTF-8 with one broken character stays UTF-8, and that character is marked."""
    html = f"<meta charset=utf-8><p>{RUSSIAN}".encode() + b"\xff</p>"
    assert decode(html, None) == f"<meta charset=utf-8><p>{RUSSIAN}\ufffd</p>"
