"""Guarantees of the compared words: one form for one text, places in the text as it stands."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from data_curation.grams import fold, folded_words, normal, placed_words, shingles, words

SIGNS = st.text(st.sampled_from("aB zÉe\u0301\u0e01\u0e31\u3042\u4e00.-_'\n\t9Σ\U0001d400"), max_size=40)


def test_words_of_several_scripts() -> None:
    """Lower case without punctuation; scripts without spaces go sign by sign; an accent stays with its letter."""
    assert words("Don't STOP_me: 3.5 cafe\u0301s") == ["don", "t", "stop", "me", "3", "5", "cafés"]
    assert words("東京 tower") == ["東", "京", "tower"]
    assert words("x\u0323\u0307y") == ["\u1e8b\u0323y"]
    assert words("--- ***") == []


@given(SIGNS)
def test_spelling_of_accents_case_and_space_do_not_matter(text: str) -> None:
    """Composed or not, upper or lower case of ASCII, wide or narrow: the same words and the same normal form."""
    other = unicodedata.normalize("NFD", text).replace(" ", " \n ")
    assert words(other) == words(text)
    assert normal(other) == normal(text)
    assert words(normal(text)) == words(text) == folded_words(fold(text))


@given(SIGNS)
def test_no_word_spans_a_space(text: str) -> None:
    """The words of a text are those of its chunks between spaces."""
    assert [word for chunk in text.split() for word in words(chunk)] == words(text)


@given(SIGNS)
def test_placed_words_stand_where_they_say(text: str) -> None:
    """Each place holds its word, the places rise and do not overlap."""
    listed, places = placed_words(text)
    assert [fold(text[start:stop]) for start, stop in places] == listed
    flat = [place for pair in places for place in pair]
    assert flat == sorted(flat)


def test_shingles_of_short_texts() -> None:
    """All runs of a size; the whole of a shorter text; nothing of an empty one."""
    assert shingles(["a", "b", "c"], 2) == ["a b", "b c"]
    assert shingles(["a", "b"], 5) == ["a b"]
    assert shingles([], 5) == []
