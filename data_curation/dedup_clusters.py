"""Clusters of rows that share a hash, joined one column at a time; arrays of a few bytes a row, no pairs of objects."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Labels = NDArray[np.int32]
"""The cluster of each row; rows of one cluster have equal numbers."""
MOST_ROWS = 2**31 - 1
"""scipy numbers the nodes of a graph with 32 bits."""


def repeats(rows: Rows, *values: NDArray[np.uint64]) -> tuple[Rows, Rows]:
    """(first, row) for each of the rows whose value (of several columns: all of them) an earlier row has as well.

    `rows` are in rising order and name places in the columns; `first` is the earliest row with that value.
    """
    columns = [column[rows] for column in values]
    order = np.argsort(columns[0], kind="stable") if len(columns) == 1 else np.lexsort(columns[::-1])
    again = np.ones(max(len(rows) - 1, 0), dtype=bool)
    for column in columns:
        column[:] = column[order]
        again &= column[1:] == column[:-1]
    places = np.flatnonzero(again) + 1
    # Of a run of equal values the place before the first repeat leads all of it.
    leads = places[np.diff(places, prepend=-1) != 1] - 1
    first = leads[np.searchsorted(leads, places, side="right") - 1]
    return rows[order[first]], rows[order[places]]


def join(labels: Labels, left: Rows, right: Rows) -> Labels:
    """The clusters when `left[i]` and `right[i]` belong together as well; labels are 0 ... clusters - 1."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = labels[left], labels[right]
    apart = np.flatnonzero(ends[0] != ends[1])
    if not len(apart):
        return labels
    size = int(labels.max()) + 1
    edges = np.ones(len(apart), dtype=np.int8), (ends[0][apart], ends[1][apart])
    found: Any = connected_components(coo_array(edges, shape=(size, size)), directed=False)[1]
    return found.astype(np.int32, copy=False)[labels]


def first_rows(labels: Labels) -> Rows:
    """The earliest row of each cluster, by its label."""
    first = np.empty(int(labels.max(initial=-1)) + 1, dtype=np.int64)
    first[labels[::-1]] = np.arange(len(labels) - 1, -1, -1)  # of several values for one place the last one stays
    return first


def survivors(labels: Labels, rows: Rows, score: NDArray[np.float64], ids: NDArray[np.uint64]) -> Rows:
    """For each of the rows the one that its cluster keeps: highest score, of equals the smallest id.

    `labels` and `score` have a place for every row there is, `ids` (n, 2) as well; only `rows` are looked at.
    """
    cluster = labels[rows]
    order = np.lexsort((ids[rows, 1], ids[rows, 0], -score[rows], cluster))
    ordered = cluster[order]
    leads = np.flatnonzero(np.diff(ordered, prepend=-1))
    best = np.empty(len(rows), dtype=np.int64)
    best[order] = np.repeat(rows[order[leads]], np.diff(leads, append=len(rows)))
    return best
