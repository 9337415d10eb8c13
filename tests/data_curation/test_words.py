"""Guarantees of the word split: datatrove's words, whatever the text, in every language of the preset."""

from functools import cache

import pytest
from datatrove.utils.word_tokenizers import SpaCyTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from data_curation.language import usual
from data_curation.words import LONG, Words
from tests.data_curation.prose import text

LANGUAGES = [language.code for language in usual()]
ODD = [
    "Mr. O'Neill can't :-) pay $1,000.50 (ca. 900€) at https://a.example/b?c=d… l'homme d'or z.B. 10km\u00a0x\ty",
    "'tis \"quoted\" „so“ «ainsi» “so”. (a) [b] {c} a.b.c. etc. U.S.A. e.g. i.e. d.h. p.ex. Sra. т.е. и т.д. 5° 10% §5",
    "well-known Well-Known a-b X-ray e-mail 3-4 over-the-top rendez-vous est-il aujourd'hui tagespolitik-nah из-за",
    "foo_bar __init__ snake_case9 v2.0.1 a1b2 3rd 1st 12:30 2026-11-25 +49-30-1234 a/b/c C++ C# .NET node.js",
    "x... y.... z… :) :-( ;-) <3 ^_^ o_O 🙂🙂 👩‍👩‍👧 e\u0301 \u200bzero\u200bwidth\u00ad soft",
    "IS_TITLE SHAPE LOWER word.IS_PUNCT", "don't dont 'em y'all can't've Ma'am I'd he'll they're", "a,b;c:d!e?f.g",
    *("...", ".", "-", ""),
    "end.\n\nstart\r\nnext\u2028line\u0085more\x1cand\x1fmore\u3000wide",
]  # fmt: skip


@cache
def reference(language: str) -> SpaCyTokenizer:
    """datatrove's own splitter."""
    return SpaCyTokenizer(language)


def split(language: str, one: str) -> list[str]:
    """Our words of a text: those of its chunks, one after the other."""
    return [word for words in Words.of(language).split(one.split()) for word in words]


@pytest.mark.parametrize("language", LANGUAGES)
def test_words_are_those_of_datatrove(language: str):
    """Abbreviations, emoticons, URLs, hyphens, quotation marks and odd spaces give datatrove's words."""
    for one in [*ODD, text(3), text(4, "de"), "\n\n".join(ODD)]:
        assert split(language, one) == reference(language).word_tokenize(one), one
        assert Words.of(language).word_tokenize(one) == reference(language).word_tokenize(one)


def test_symbols_of_spacy_are_words_whatever_was_read_before():
    """The name that breaks spaCy's vocabulary, or not, is a word each time."""
    for _ in range(2):
        assert split("en", "IS_ALPHA x.IS_ALPHA (IS_ALPHA)") == ["IS_ALPHA", "x.", "IS_ALPHA", "(", "IS_ALPHA", ")"]
        split("en", "IS_ALPHA. " + text(1))


PIECES = st.sampled_from(
    [
        *("word", "Word", "a", "I", "U.S", "z.B", "don't", "l'", "d'", "qu'", "can", "not", "10", "3.5", "km", "é"),
        *("ß", "ж", "слово", "и", "т.е", "http://", "www.", ".com", "\u00a0", "\u200d", "🙂", "\u0301"),
        *(".", "..", "...", ",", ":", ";", "!", "?", "-", "--", "_", "'", '"', "(", ")", "[", "]", "„", "“", "”"),
        *("«", "»", ":-", "/", "@", "#", "€", "%", "…"),
    ]
)  # fmt: skip
CHUNKS = st.lists(st.one_of(PIECES, PIECES, PIECES, st.text(min_size=1, max_size=3)), min_size=1, max_size=6).map(
    "".join
)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.lists(CHUNKS, min_size=1, max_size=8).map(" ".join), st.sampled_from(LANGUAGES))
def test_words_are_those_of_datatrove_in_any_text(one: str, language: str):
    """Whatever stands between spaces, the words are datatrove's."""
    assert split(language, one) == reference(language).word_tokenize(one)


@pytest.mark.parametrize("piece", ["(", "\"'", "1.1.", "2001:", "word-", "a"])
def test_chunks_without_end_are_split_at_marks(piece: str):
    """A chunk of a million characters, on which spaCy's rules would take quadratic time, is split at every mark."""
    chunk = piece * (1_000_000 // len(piece))
    (words,) = Words.of("en").split([chunk])
    assert "".join(words) == chunk
    assert all(word.isalnum() or len(word) == 1 for word in words)
    assert len(chunk) > LONG
