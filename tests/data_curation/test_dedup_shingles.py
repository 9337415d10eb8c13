"""Guarantees of MinHash bands: the published rate of recall, the same shingles as the readable rule makes."""

import random

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from data_curation import dedup_shingles
from data_curation.dedup_shingles import Hashes, band_hashes, hash_texts
from data_curation.grams import normal, shingles, words


def bands(texts: list[str], ngram: int = 5, seed: int = 1) -> Hashes:
    """Bands of 14 times 8 hashes."""
    return band_hashes(hash_texts(texts, ngram), bands=14, rows=8, seed=seed)


def similar(similarity: float, number: int, draw: random.Random, size: int = 200) -> tuple[str, str]:
    """Two texts of one-word shingles whose Jaccard index is the given one."""
    shared = round(2 * size * similarity / (1 + similarity))
    common = [f"c{number}x{index}" for index in range(shared)]
    sides = [[f"{side}{number}x{index}" for index in range(size - shared)] for side in "ab"]
    first, second = (" ".join(draw.sample(common + own, size)) for own in sides)
    return first, second


@pytest.mark.parametrize("similarity", [0.5, 0.6, 0.7, 0.8, 0.9])
def test_recall_follows_the_formula(similarity: float) -> None:
    """Planted pairs of similarity s meet with probability 1 - (1 - s^8)^14, within two standard errors of 600."""
    draw, pairs = random.Random(similarity), 600
    planted = [similar(similarity, number, draw) for number in range(pairs)]
    left, right = (bands([pair[side] for pair in planted], ngram=1) for side in (0, 1))
    met = float((left == right).any(axis=1).mean())
    sets = [set(shingles(words(one), 1)) for one in planted[0]]
    true = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    expected = 1 - (1 - true**8) ** 14
    error = np.sqrt(expected * (1 - expected) / pairs)
    assert abs(met - expected) <= 2 * error + 1 / pairs


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_bands_agree_as_often_as_they_should(seed: int) -> None:
    """Over many pairs each band agrees with probability s^8: the hashes of one band do not depend on each other."""
    draw, pairs = random.Random(seed), 2000
    planted = [similar(0.8, number, draw, 60) for number in range(pairs)]
    left, right = (bands([pair[side] for pair in planted], 1, seed) for side in (0, 1))
    true = 53 / 67
    error = np.sqrt(true**8 * (1 - true**8) / pairs / 14)
    assert abs(float((left == right).mean()) - true**8) <= 4 * error


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.text(
            st.sampled_from("ab zÉe\u0301\u0307\u3042\u3044\u0e31.-_\n\t\x1c\u2028Σ9\U0001d400\U0001f600"), max_size=40
        ),
        max_size=6,
    ),
    st.integers(1, 4),
)
def test_shingles_are_those_of_the_readable_rule(texts: list[str], ngram: int) -> None:
    """Two texts share hashes exactly where they share shingles, and each has as many as it should."""
    _, hashes, starts = hash_texts(texts, ngram)
    known: dict[str, int] = {}
    for index, text in enumerate(texts):
        listed = shingles(words(text), ngram)
        found = hashes[int(starts[index]) : int(starts[index + 1])].tolist()
        assert len(found) == len(listed)
        for shingle, value in zip(listed, found, strict=True):
            assert known.setdefault(shingle, value) == value
    assert len(set(known.values())) == len(known)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(st.sampled_from("ab \n\x1c\u3000ÉΣ"), max_size=12), max_size=6))
def test_exact_hashes_are_those_of_the_normal_text(texts: list[str]) -> None:
    """Texts have one hash exactly where they are equal but for case and space."""
    found = hash_texts(texts, 5).exact
    assert found == [xxhash.xxh3_128_digest(normal(text).encode("utf-32-le")) for text in texts]


def test_long_texts_are_hashed_as_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many characters are hashed at once changes nothing, and a text may be longer than that."""
    texts = [" ".join(f"w{number}x{index}" for index in range(20 * number)) for number in range(12)]
    whole = hash_texts(texts, 5)
    monkeypatch.setattr(dedup_shingles, "AT_ONCE", 100)
    dedup_shingles._table.cache_clear()
    parts = hash_texts(texts, 5)
    dedup_shingles._table.cache_clear()
    assert parts.exact == whole.exact
    assert (parts.shingles == whole.shingles).all()
    assert (parts.starts == whole.starts).all()


def test_the_batch_changes_nothing() -> None:
    """A text has the same bands beside others, short and empty ones, as alone; other seeds give other bands."""
    texts = ["one two three four five six", "", "one", "***", "two three four", "one two three four five"]
    together = bands(texts)
    assert all((bands([text])[0] == row).all() for text, row in zip(texts, together, strict=True))
    assert not together[[1, 3]].any()
    assert together[[0, 2, 4, 5]].all()
    assert not (bands(texts, seed=2)[0] == together[0]).any()
    assert bands([]).shape == (0, 14)
