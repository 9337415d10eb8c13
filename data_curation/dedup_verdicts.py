"""Which documents stay: blocked, then one per URL, then one per cluster of equal and nearly equal texts."""

from collections import Counter
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_curation.dedup import DedupConfig
from data_curation.dedup_clusters import MOST_ROWS, Rows, first_rows, join, repeats, survivors
from data_curation.dedup_columns import Columns, as_bytes, write_columns
from data_curation.dedup_index import Blocked
from data_curation.place import PieceWriter
from data_curation.settings import InputError

REASONS = (
    ("", ""),
    ("blocked", "blocked-id"),
    ("blocked", "blocked-url"),
    ("url", "same-url"),
    ("index", "in-index"),
    ("exact", "equal-text"),
    ("minhash", "near-duplicate"),
)
"""Step and reason of a verdict, by its code; 0 stays."""
STAYS, BLOCKED_ID, BLOCKED_URL, URL, IN_INDEX, EQUAL, NEAR = range(len(REASONS))
PAIRS = 300
"""Dropped near-duplicates whose true similarity to the kept document is measured."""
SHOWN, MEMBERS = 5, 8
"""Largest clusters on the stage's page, and documents named of each."""


class Verdicts:
    """What becomes of each row; the first `old` rows are those of older indexes.

    Memory: one column of hashes at a time (8 bytes a row, ids and texts 16), what sorting and joining it takes, and 21
    bytes a row of its own. benchmarks/dedup.py measures 113 bytes a row at the peak: 0.1 GB per million documents.
    """

    def __init__(self, config: DedupConfig, columns: Columns, scored: Columns, old: int) -> None:
        if columns.rows > MOST_ROWS:
            raise InputError(f"{columns.rows} documents: dedup takes {MOST_ROWS} in one run, older indexes included")
        self.config, self.columns, self.old = config, columns, old
        self.scored = scored
        self.kept: Rows = np.arange(columns.rows)
        """The row that stays in place of each."""
        self.code: NDArray[np.uint8] = np.zeros(columns.rows, dtype=np.uint8)

    def block(self, blocked: Blocked) -> None:
        """Take out what the block lists name."""
        if len(blocked.urls):
            keys = self.columns.numbers("url_key")
            self.code[self.old :][np.isin(keys[self.old :], blocked.urls)] = BLOCKED_URL
        if len(blocked.ids):
            ids = self.columns.pairs("id")[self.old :]
            some = np.flatnonzero(np.isin(ids[:, 0], blocked.ids[:, 0]))
            names = {(int(high), int(low)) for high, low in blocked.ids}
            found = [row for row in some if (int(ids[row, 0]), int(ids[row, 1])) in names]
            self.code[self.old :][found] = BLOCKED_ID

    def by_url(self) -> None:
        """Leave one document of each URL. Its text alone is compared on, so clusters are never joined through URLs."""
        keys = self.columns.numbers("url_key")
        first, again = repeats(self._alive(keys != 0), keys)
        known = first < self.old
        self._drop(again[known], first[known], IN_INDEX)
        first, again = first[~known], again[~known]
        if len(again):
            labels = np.arange(self.columns.rows, dtype=np.int32)
            labels[again] = first
            self._keep_best(labels, np.union1d(first, again), URL)

    def by_text(self) -> None:
        """Leave one document of each chain of equal texts or equal bands."""
        rows = self._alive()
        exact = self.columns.pairs("exact")
        first, again = repeats(rows, exact[:, 0], exact[:, 1])
        del exact
        same = np.arange(self.columns.rows, dtype=np.int32)
        same[again] = first
        match = np.full(self.columns.rows, -1, dtype=np.int32)
        """The first old document that a new one shares a hash with."""
        labels = join(np.arange(self.columns.rows, dtype=np.int32), first, again)
        self._match(match, first, again)
        for band in self._bands():
            values = self.columns.numbers(band)
            first, again = repeats(self._alive(values != 0), values)
            self._match(match, first, again)
            labels = join(labels, first, again)
        self._drop_known(labels, match)
        clustered = self._alive(np.bincount(labels)[labels] > 1)
        self._keep_best(labels, clustered[clustered >= self.old], NEAR)
        self.code[(self.code == NEAR) & (same == same[self.kept])] = EQUAL

    def finish(self) -> NDArray[np.float32]:
        """Name the document that stays in the end; returns the estimated similarity to it, NaN where nothing tells.

        Of `bands` bands m agree for a pair of similarity s where m / bands = s^rows on average.
        """
        # One kept for its URL may have gone as a near-duplicate since.
        self.kept = self.kept[self.kept]
        rows = np.flatnonzero((self.code == IN_INDEX) | (self.code == NEAR))
        agree = np.zeros(len(rows), dtype=np.int32)
        for band in self._bands():
            values = self.columns.numbers(band)
            agree += (values[rows] == values[self.kept[rows]]) & (values[rows] != 0)
        found = np.full(self.columns.rows, np.nan, dtype=np.float32)
        share = agree[agree > 0] / self.config.bands
        found[rows[agree > 0]] = np.round(share ** (1 / self.config.rows), 3)
        return found

    def _bands(self) -> list[str]:
        return [f"band{band:02d}" for band in range(self.config.bands)]

    def _alive(self, also: NDArray[np.bool_] | None = None) -> Rows:
        stays = self.code == STAYS
        return np.flatnonzero(stays if also is None else stays & also)

    def _drop(self, rows: Rows, kept: Rows, code: int) -> None:
        new = rows >= self.old
        self.kept[rows[new]], self.code[rows[new]] = kept[new], code

    def _match(self, match: NDArray[np.int32], first: Rows, again: Rows) -> None:
        """An old row leads its run of equal hashes, being earlier than all new ones."""
        known = (first < self.old) & (again >= self.old)
        fresh = match[again[known]] < 0
        match[again[known][fresh]] = first[known][fresh]

    def _drop_known(self, labels: NDArray[np.int32], match: NDArray[np.int32]) -> None:
        """A chain that reaches an old document goes whole; a link without a match of its own names its first one."""
        if self.old:
            first = first_rows(labels)[labels]
            rows = self._alive(first < self.old)
            self._drop(rows, np.where(match[rows] < 0, first[rows], match[rows]), IN_INDEX)

    def _keep_best(self, labels: NDArray[np.int32], rows: Rows, code: int) -> None:
        if not len(rows):
            return
        score = np.full(self.columns.rows, -np.inf)
        score[self.old :] = self.scored.numbers("score", np.float64)
        best = survivors(labels, rows, score, self.columns.pairs("id"))
        self._drop(rows[best != rows], best[best != rows], code)


def write_verdicts(verdicts: Verdicts, similarity: NDArray[np.float32], piece: PieceWriter) -> None:
    """One file of verdicts per file of documents, and notes for the stage's page."""
    ids, scored, old = verdicts.columns.pairs("id"), verdicts.scored, verdicts.old
    for file, (start, stop) in enumerate(zip(scored.starts, scored.starts[1:], strict=False)):
        rows = slice(old + start, old + stop)
        table: Any = {
            "code": verdicts.code[rows],
            "kept": as_bytes(ids[verdicts.kept[rows]]),
            "similarity": pa.array(similarity[rows], from_pandas=True),  # NaN is null
        }
        write_columns(piece, "work/verdicts", f"{file:05d}.parquet", pa.table(table))
    piece.piece.note |= _sizes(verdicts, ids) | {"pairs": _pairs(verdicts, ids), "old": old}
    piece.piece.note["unscored"] = int(np.isinf(scored.numbers("score", np.float64)).sum())


def _sizes(verdicts: Verdicts, ids: NDArray[np.uint64]) -> dict[str, Any]:
    """How many clusters there are of each size (old documents count as one), and members of the largest."""
    gone = np.flatnonzero(verdicts.code >= URL)
    members = np.bincount(verdicts.kept[gone]) + 1
    leads = np.flatnonzero(members > 1)
    sizes = Counter(cast(list[int], members[leads].tolist()))
    largest = leads[np.lexsort((ids[leads, 1], ids[leads, 0], -members[leads]))][:SHOWN]
    shown: list[dict[str, Any]] = []
    for lead in largest:
        some = gone[verdicts.kept[gone] == lead]
        some = some[np.lexsort((ids[some, 1], ids[some, 0]))][: MEMBERS - 1]
        rows = [int(row) for row in (lead, *some) if row >= verdicts.old]
        shown.append({"size": int(members[lead]), "rows": [_place(verdicts, row) for row in rows]})
    return {"sizes": {str(size): number for size, number in sorted(sizes.items())}, "largest": shown}


def _pairs(verdicts: Verdicts, ids: NDArray[np.uint64]) -> list[list[tuple[int, int]]]:
    """The dropped near-duplicates with the smallest ids (which are hashes: a random sample) and what was kept."""
    near = np.flatnonzero(verdicts.code == NEAR)
    chosen = near[np.lexsort((ids[near, 1], ids[near, 0]))][:PAIRS]
    return [[_place(verdicts, int(row)), _place(verdicts, int(verdicts.kept[row]))] for row in chosen]


def _place(verdicts: Verdicts, row: int) -> tuple[int, int]:
    return verdicts.scored.place_of(row - verdicts.old)
