"""Guarantees of the text of a page: whole paragraphs, right letters, no furniture, a reason for every drop."""

import pytest

from data_curation.extract import extract_html
from data_curation.html_lean import Lean, lean
from data_curation.html_text import take
from tests.data_curation.prose import page, paragraphs, text

SCRIPTS = "<script>var state = 'x';</script>" * 20 + f"<script>{'x = 1;' * 5000}</script>"
"""Makes a page as heavy with scripts as news pages are."""


def test_paragraphs_title_and_language_survive() -> None:
    """The text holds every paragraph, blank lines between them, and neither menu nor footer."""
    found = extract_html(page(3), "https://a.example/3")
    assert found.text.split("\n\n") == ["Page 3", *paragraphs(3)]
    assert (found.title, found.languages, found.reason) == ("Page 3", ("en",), "")


@pytest.mark.parametrize(
    ("html", "reason"),
    [
        (b"", "empty"),
        (b" \n ", "empty"),
        (b"<p>" + b"x" * 5_000_000, "too-large"),
        (b"<div>" * 20_000 + b"text", "too-deep"),
        (b"<div>" * 200_000 + b"text", "too-deep"),
        (("<div>" * 20_000 + "text").encode("utf-16"), "too-deep"),
        (b"<div></b>" * 20_000, "too-deep"),
        (b"<div>" * 2_000 + b"x" * 3_000_000, "too-deep"),
        (b"<div>" * 500 + b"x" * 3_500_000, "too-complex"),
        (b"<select>" + b"<option>x" * 200_000, "too-complex"),
        (b"<div " + b" ".join(b"a%d" % number for number in range(100_000)) + b">text", "too-complex"),
        (b"".join(b"<body a%d=1>" % number for number in range(80_000)) + b"text", "too-complex"),
        (b"".join(b"<b id=%d>" % number for number in range(500)) + b"<p>x" * 200_000, "too-complex"),
        (b"<html><script>var text = 1;</script></html>", "no-text"),
    ],
)
def test_unusable_pages_have_a_reason(html: bytes, reason: str) -> None:
    """What cannot be used, or would take too long, is dropped with its reason."""
    assert extract_html(html, None).reason == reason


@pytest.mark.parametrize(
    "html",
    [
        b"<p>text" * 20_000,
        b"<svg>" + b"<path d='M1'/>" * 2000 + b"</svg><p>text</p>",
        b"<script>" + b"for (i = 0; i<n; i++) {}" * 2000 + b"</script><p>text</p>",
        b"<a name='x'>" * 2000 + b"text",
        b"<br><img><input>" * 2000 + b"text",
    ],
)
def test_pages_that_only_look_deep_are_kept(html: bytes) -> None:
    """Elements that need no end, drawings and comparisons in scripts do not count as nesting."""
    assert "text" in extract_html(html, None).text


def test_body_that_the_fast_extractor_loses_is_kept() -> None:
    """Where the fast extractor takes the whole body for a side matter, it is brought back."""
    body = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs(5))
    for scripts in ("", SCRIPTS):
        html = f"<html><body>{scripts}<div class='sidebar'><article>{body}</article></div><p>End.</p></body></html>"
        assert set(paragraphs(5)) <= set(extract_html(html.encode(), None).text.split("\n\n"))


def test_code_is_cut_and_nothing_else() -> None:
    """Scripts, styles and drawings go, data and text stay, and what is extracted is that of the whole page."""
    code, data = b"a = 1; " * 200, b'<script type="application/ld+json">' + b'{"a": 1} ' * 100 + b"</script>"
    named = b"<styled-text>" + code + b"</styled-text>"
    drawn, broken = b"<path d='M1 2'></path>" * 40, b"<svg><p>" + code + b"</p></svg>"
    kept = data + named + broken + page(5) + b"<p>" + code * 50 + b"</p>"
    begin, middle = b"<SCRIPT src='x>y' async>" + code, b"</SCRIPT ><script>" + code + b"'<!--<script>"
    whole = (
        begin
        + middle
        + code
        + b"</script>"
        + code
        + b"</script><style>"
        + code
        + b"</style><svg x>"
        + drawn
        + b"</svg>"
        + kept
    )
    left = b"<SCRIPT>" + middle + b"</script>" + code + b"</script><style></style><svg></svg>" + kept
    assert lean(whole) == (left, len(whole) - len(left))
    assert take(lean(whole), None, None, 0.35).text == take(Lean(whole, 0), None, None, 0.35).text
    assert lean(b"<p>" * 20_000 + whole).cut == 0 == lean(whole[:30_000]).cut


def test_comments_of_readers_are_no_lost_body() -> None:
    """A short text with much below it from readers is the text; without the mark of comments it is the whole."""
    said = "".join(f"<p>{paragraph}</p>" for number in (3, 4) for paragraph in paragraphs(number))
    short = "<article><p>" + text(40)[:400] + ".</p></article>"
    for name, found in (("comments", False), ("story", True)):
        html = f"<html><body>{SCRIPTS}{short}<div id={name} class=comments>{said}</div></body></html>"
        assert (paragraphs(3)[0] in extract_html(html.encode(), None).text) == found


def test_furniture_around_an_article_is_left_out() -> None:
    """Of a page heavy with scripts the paragraphs are kept, menus, teasers and notices are not."""
    first, second = paragraphs(7)[:3], paragraphs(7)[3:]
    teasers = "".join(f"<p><a href='/{number}'>{text(number)[:60]}</a></p>" for number in range(8))
    html = f"""<html><body>{SCRIPTS}<div><p>This site uses cookies.</p></div><div class="story">
        {"".join(f"<p>{paragraph}</p>" for paragraph in first)}
        <p>Share this</p><p>Subscribe to our newsletter</p>
        {"".join(f"<p>{paragraph}</p>" for paragraph in second)}
        <h3>Related</h3>{teasers}<p>Copyright 2019. All rights reserved.</p></div></body></html>"""
    assert extract_html(html.encode(), None).text.split("\n\n") == paragraphs(7)


def test_lists_code_and_tables_of_a_manual_are_readable() -> None:
    """A manual keeps its headings, list marks, rows of cells and the layout of its code, and loses its navigation."""
    first, second = paragraphs(9)[:2]
    html = f"""<html><body><ul><li><a href="a">Back</a></li><li><a href="b">Next</a></li></ul>
        <h1>Commands</h1><p>{first}</p><ul><li>one</li><li>two<ul><li>inner</li></ul></li></ul><ol><li>a</li><li>b</li></ol>
        <pre>if x &lt; 1:\n    go()\n\n    stop()</pre><h2>Table</h2>
        <table><tr><td>key</td><td>value</td></tr><tr><td>1</td><td>2</td></tr></table><p>{second}</p>
        <p><a href="a">Back</a></p><p><a href="b">Next</a></p></body></html>"""
    expected = f"""Commands\n\n{first}\n\n- one\n- two\n  - inner\n1. a\n2. b\n\nif x < 1:\n    go()\n\n    stop()\n
Table\n\nkey\t\tvalue\n1\t\t2\n\n{second}"""
    assert extract_html(html.encode(), None).text == expected


def test_index_pages_keep_their_links() -> None:
    """Where lists of links are all that a page has, they are its text."""
    items = "".join(f"<li><a href='/{number}'>Chapter {number}</a></li>" for number in range(30))
    found = extract_html(f"<html><body><h1>Contents</h1><ul>{items}</ul></body></html>".encode(), None)
    assert found.text.split("\n")[-1] == "- Chapter 29"


@pytest.mark.parametrize("language", ["ja", "ru", "zh", "de"])
@pytest.mark.parametrize("scripts", ["", SCRIPTS])
def test_other_languages_keep_their_paragraphs(language: str, scripts: str) -> None:
    """Text without spaces or Latin letters counts as text."""
    sentence = {
        "ja": "古い橋のそばで庭師は新しい時計を直し、隣人に長い話をした。",
        "ru": "Старый садовник починил новые часы и рассказал соседу длинную историю.",
        "zh": "老园丁在桥边修好了新的钟表给邻居讲了一个很长的故事。",
        "de": "Die alte Gärtnerin reparierte die neue Uhr und erzählte der Nachbarin eine lange Geschichte.",
    }[language]
    wanted = [sentence * (2 + number) for number in range(6)]
    body = "".join(f"<p>{paragraph}</p>" for paragraph in wanted)
    html = f"<html lang={language}><body>{scripts}<div><a href='/'>Home</a></div><div>{body}</div></body></html>"
    found = extract_html(html.encode(), None)
    assert [line for line in found.text.split("\n\n") if line in wanted] == wanted
    assert found.languages == (language,)


def test_declared_languages_come_from_root_and_head() -> None:
    """The root element's language comes first, what the head adds follows, each once."""
    html = b"""<html class=x lang="en-GB"><head><meta content="de_DE" property="og:locale">
        <meta http-equiv="Content-Language" content="en-GB"></head><body><p>text</p></body></html>"""
    assert extract_html(html, None).languages == ("en-GB", "de_DE")


def test_control_characters_and_surrogates_are_left_out() -> None:
    """Text is always legal UTF-8 without NUL, so that no later stage stumbles."""
    found = extract_html(b"<p>one&#0;two\x0b&#xD800;three&#x2028;four</p>", None)
    assert found.text.encode().isascii() or "\ufffd" in found.text
    assert not any(ord(sign) < 32 and sign not in "\n\t" for sign in found.text)
