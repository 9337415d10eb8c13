"""Guarantees of the text of a page: whole paragraphs, right letters, a reason for every drop."""

import pytest

from data_curation.extract import extract_html
from tests.data_curation.prose import page, paragraphs, text


def test_paragraphs_title_and_language_survive() -> None:
    """The text holds every paragraph, blank lines between them, and neither menu nor footer."""
    found = extract_html(page(3), "https://a.example/3")
    assert found.text.split("\n\n") == ["Page 3", *paragraphs(3)]
    assert (found.title, found.languages, found.reason) == ("Page 3", ("en",), "")


@pytest.mark.parametrize(
    ("codec", "declared", "charset"),
    [
        ("utf-8", "", None),
        ("latin-1", '<meta charset="iso-8859-1">', None),
        ("latin-1", "", "iso-8859-1"),
        ("utf-16", "", "utf-16"),
        ("utf-8", "", "no-such-codec"),
        ("cp1252", "", None),
    ],
)
def test_encodings_are_found(codec: str, declared: str, charset: str | None) -> None:
    """The server's charset, the page's own, or the bytes themselves tell the encoding."""
    body = text(1, "de")
    html = f"<html><head>{declared}</head><body><p>{body}</p></body></html>".encode(codec)
    assert extract_html(html, None, charset=charset).text.split() == body.split()


@pytest.mark.parametrize(
    ("html", "reason"),
    [
        (b" \n ", "empty"),
        (b"<p>" + b"x" * 5_000_000, "too-large"),
        (b"<div>" * 20_000 + b"text", "too-deep"),
        (("<div>" * 20_000 + "text").encode("utf-16"), "too-deep"),
        (b"<html><script>var text = 1;</script></html>", "no-text"),
    ],
)
def test_unusable_pages_have_a_reason(html: bytes, reason: str) -> None:
    """What cannot be used, or would take too long, is dropped with its reason."""
    assert extract_html(html, None).reason == reason


def test_body_that_the_fast_extractor_loses_is_kept() -> None:
    """Where the fast extractor takes the whole body for a side matter, the careful one brings it back."""
    body = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs(5))
    html = f"<html><body><div class='sidebar'><article>{body}</article></div><p>End.</p></body></html>".encode()
    assert set(paragraphs(5)) <= set(extract_html(html, None).text.split("\n\n"))


def test_control_characters_and_surrogates_are_left_out() -> None:
    """Text is always legal UTF-8 without NUL, so that no later stage stumbles."""
    found = extract_html(b"<p>one&#0;two\x0b&#xD800;three</p>", None)
    assert found.text.encode().isascii() or "\ufffd" in found.text
    assert not any(ord(sign) < 32 and sign not in "\n\t" for sign in found.text)
