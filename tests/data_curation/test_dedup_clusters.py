"""Guarantees of clusters: what an exhaustive search finds, in arrays."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data_curation.dedup_clusters import first_rows, join, repeats, survivors

COLUMNS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=30)


@settings(max_examples=200, deadline=None)
@given(COLUMNS, st.integers(0, 3))
def test_repeats_name_the_first_of_their_value(values: list[tuple[int, int]], skipped: int) -> None:
    """Each row but the first of its value is named once, with that first; rows left out take no part."""
    rows = [row for row in range(len(values)) if row != skipped]
    left, right = (np.asarray([value[side] for value in values], dtype=np.uint64) for side in (0, 1))
    expected: dict[int, int] = {}
    for row in rows:
        first = next(other for other in rows if values[other] == values[row])
        if first != row:
            expected[row] = first
    first, again = repeats(np.asarray(rows, dtype=np.int64), left, right)
    assert dict(zip(again.tolist(), first.tolist(), strict=True)) == expected
    assert len(again) == len(expected)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=8), max_size=4))
def test_joining_finds_every_chain(columns: list[list[tuple[int, int]]]) -> None:
    """Joined one column after the other, rows share a label exactly where a chain of pairs joins them."""
    labels = np.arange(20, dtype=np.int32)
    reach = [{row} for row in range(20)]
    for pairs in columns:
        ends = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
        labels = join(labels, ends[:, 0], ends[:, 1])
        for left, right in pairs:
            both = reach[left] | reach[right]
            for row in both:
                reach[row] = both
    assert [{row for row in range(20) if labels[row] == labels[one]} for one in range(20)] == reach
    assert first_rows(labels)[labels].tolist() == [min(some) for some in reach]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 2), st.integers(0, 5)), max_size=30))
def test_the_survivor_is_the_best(some: list[tuple[int, int, int, int]]) -> None:
    """Highest score first, then the smallest id, compared by its high half before its low one."""
    labels = np.asarray([one[0] for one in some], dtype=np.int32)
    score = np.asarray([one[1] if one[1] else -np.inf for one in some], dtype=np.float64)
    ids = np.asarray([one[2:] for one in some], dtype=np.uint64).reshape(-1, 2)
    rows = np.arange(len(some))
    best = survivors(labels, rows, score, ids)
    for row, one in enumerate(some):
        cluster = [other for other in range(len(some)) if some[other][0] == one[0]]
        assert best[row] == min(cluster, key=lambda other: (-score[other], some[other][2:]))
