"""Guarantees of the matcher: it finds what a plain reading of its rules finds."""

from itertools import product
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data_curation.decontaminate import DecontaminateConfig
from data_curation.documents import write_table
from data_curation.evaluation_index import Index, load, write_index
from data_curation.evaluation_items import ITEMS, PART
from data_curation.matching import NEAR, RUN, WHOLE, Matcher, common_subsequence, in_order
from tests.data_curation.places import place

WORDS = st.sampled_from(["a", "b", "c", "d", "e", "f"])


def index(home: Path, texts: list[str], anchor: int) -> Index:
    """An index of the texts."""
    where = place(home, home / "scratch")
    with where.piece("items") as piece:
        empty = {"sets": ["set"], "names": ["name"], "records": ["record"]}
        write_table(piece, PART, "items.parquet", [{"text": text, **empty} for text in texts], ITEMS)
        write_index(piece, PART, texts, anchor)
    return load(where, piece.piece, PART, anchor)


def subsequence(one: list[str], other: list[str]) -> int:
    """Length of the longest common subsequence, by the table of all prefixes."""
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for row, column in product(range(len(one)), range(len(other))):
        same = one[row] == other[column]
        table[row + 1][column + 1] = (
            table[row][column] + 1 if same else max(table[row][column + 1], table[row + 1][column])
        )
    return table[-1][-1]


@given(st.lists(WORDS, max_size=30), st.lists(WORDS, min_size=1, max_size=20))
def test_words_in_order_are_the_longest_common_subsequence(window: list[str], text: list[str]) -> None:
    """The quick count is that of the table; the careful one is never above it, and its span holds all it counts."""
    assert common_subsequence(window, text) == subsequence(window, text)
    start, end, stand = in_order(window, text)
    assert 0 <= stand <= subsequence(window[start:end], text)


def test_stray_words_do_not_count() -> None:
    """The span begins and ends with words that stand side by side in the text; single ones around it do not count."""
    text = "the old bridge of the town was painted by the miller".split()  # noqa: SIM905
    window = "so the cat of old bridge of the town was blue by the miller of the".split()  # noqa: SIM905
    assert in_order(window, text) == (4, 14, 9)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(WORDS, min_size=3, max_size=12), min_size=1, max_size=4, unique_by=tuple),
    st.lists(WORDS, max_size=40),
)
def test_every_text_and_run_is_found(tmp_path_factory: "object", texts: list[list[str]], document: list[str]) -> None:
    """Each text that stands whole is found, and so is each run of `ngram` words; a find holds what it says it does."""
    home = tmp_path_factory.mktemp("index")  # type: ignore[attr-defined]
    config = DecontaminateConfig(ngram=5, short_words=3, anchor=3, near=0.8)
    made = index(home, [" ".join(text) for text in texts], 3)
    matcher = Matcher(config, made, np.zeros(len(made.anchors), dtype=np.int64))
    finds = matcher.finds(document)
    assert matcher.suspects(" ".join(document)) == bool(finds)
    for find in finds:
        span, text = document[find.start : find.end], texts[find.item]
        if find.kind in (WHOLE, RUN):
            assert " ".join(span) in " ".join(text)
            assert find.share == len(span) / len(text)
        else:
            assert find.kind == NEAR
            assert subsequence(span, text) / len(text) >= find.share >= 0.8
    for number, text in enumerate(texts):
        held = [find for find in finds if find.item == number]
        for start in range(len(document) - len(text) + 1):
            if document[start : start + len(text)] == text:
                assert any(find.share == 1 and find.start <= start + len(text) and start < find.end for find in held)
        for start, offset in product(range(len(document) - 4), range(len(text) - 4)):
            if document[start : start + 5] == text[offset : offset + 5]:
                covered = {word for find in held for word in range(find.start, find.end)}
                assert covered.intersection(range(start, start + 5))


def test_an_anchor_of_many_texts_finds_those_without_a_rarer_one(tmp_path: Path) -> None:
    """A template that all texts share is not searched for each of them, and no text gets out of reach."""
    template = ["which", "of", "the", "following", "is"]
    texts = [[*template, f"word{number}", *(["x", "y", "z"])] for number in range(60)]
    made = index(tmp_path, [" ".join(text) for text in [*texts, template]], 5)
    matcher = Matcher(DecontaminateConfig(short_words=5), made, np.zeros(len(made.anchors), dtype=np.int64))
    assert [find.item for find in matcher.finds(["so", *template, "it"])] == [60]
    assert {find.item for find in matcher.finds(["so", *texts[7], "it"])} == {7, 60}


def test_a_word_repeated_for_ever_makes_few_finds(tmp_path: Path) -> None:
    """A page of one word gives at most two finds for each length of the text; one after it is found whole."""
    made = index(tmp_path, [" ".join(["tick"] * 40 + ["tock"])], 5)
    matcher = Matcher(DecontaminateConfig(), made, np.zeros(len(made.anchors), dtype=np.int64))
    assert 0 < len(matcher.finds(["tick"] * 40_000)) < 2_000
    rest = [f"word{number}" for number in range(50)]
    whole = matcher.finds(["tick"] * 4_000 + rest + ["tick"] * 40 + ["tock"])[-1]
    assert (whole.kind, whole.start, whole.end) == (WHOLE, 4_050, 4_091)
