"""Guarantees of normalisation: exactly ftfy's text, and nothing else touched."""

import ftfy
from hypothesis import given, settings
from hypothesis import strategies as st

from data_curation.normalise import normalise
from tests.data_curation.prose import text

REFERENCE = ftfy.TextFixerConfig(
    unescape_html=False, uncurl_quotes=False, fix_character_width=False, normalization="NFC", explain=False
)
PIECES = st.sampled_from(
    [
        *("word", "a ", "é", "ü", "ß", "“", "”", "’", "…", "–", "€", "ñ", "ж", "日本", "🙂", "&amp;", "&lt;", "\n"),
        *("\r\n", "\r", "\u2028", "\u2029", "\x85", "\x00", "\x07", "\x1b[31m", "\ufeff", "\u200b", "\u00ad"),
        *("\u0301", "e\u0301", "ﬁ", "ǆ", "ĳ"),
        *("Ã©", "Ã", "Â ", "â€™", "â€œ", "Ð¶", "\xa0", "Ｆ", "\n\u00c3 ", "\n\u00c2 ", "à", "\ufffd", "^", "Ã  "),
    ]
)  # fmt: skip


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(st.lists(st.one_of(PIECES, st.text(max_size=4)), max_size=12).map("".join))
def test_text_is_what_ftfy_makes_of_it(one: str):
    """The short cut for text without fault never differs from ftfy."""
    assert normalise(one) == ftfy.fix_text(one, REFERENCE)


def test_wrong_decoding_is_undone():
    """Text that was decoded with a wrong charset comes out as it was written; right text stays to the sign."""
    right = "The café in São Paulo “won’t” open – it costs 5 €, said Jürgen…\n\nÇa va? Это слово."
    assert normalise(right) == right
    latin = right.removesuffix(" Это слово.")
    assert normalise(latin.encode().decode("sloppy-windows-1252")) == latin
    assert normalise(right.encode().decode("latin-1")) == right


def test_meant_signs_stay():
    """Entities, quotation marks, dashes and wide letters are the author's; controls and ligatures are not."""
    meant = "Write &amp; for “and” – ＡＢＣ, x\u200bby, a\u00adb"
    assert normalise(meant) == meant
    assert normalise("o\ufb03ce\x00 \x07of\r\nfire\u2028") == "office of\nfire\n"
    assert normalise("e\u0301") == "é"
    prose = text(1) + text(2, "de")
    assert normalise(prose) is prose
