"""Which training documents are near-duplicates of held-out ones: shared runs of tokens, counted exactly."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from data_curation.shards import Tokens

RUN = 8  # tokens, about six words: shorter ones are shared by chance
SMALLEST = 48  # distinct runs a held-out document needs before another one counts as a copy of it for holding it
COMMON = 32  # a run of more held-out documents is boilerplate and tells nothing
PART = 1 << 20
TABLE_BITS = 24  # of a table that rules out nearly every run with one look-up

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class HeldOut:
    """The distinct runs of `RUN` tokens of all held-out documents, sorted, with the document that each is from."""

    runs: Hashes
    owners: NDArray[np.int64]
    sizes: NDArray[np.int64]
    """Distinct runs of each document."""

    @classmethod
    def of(cls, tokens: Tokens, lengths: NDArray[np.int64]) -> "HeldOut":
        """From the documents' tokens, one after the other, each closed by a separator."""
        hashes, owners = _runs(tokens, lengths)
        order = np.lexsort((owners, hashes))
        hashes, owners = hashes[order], owners[order]
        new = np.ones(len(order), bool)
        new[1:] = (np.diff(owners) != 0) | (hashes[1:] != hashes[:-1])
        hashes, owners = hashes[new], owners[new]
        _, where, number = np.unique(hashes, return_inverse=True, return_counts=True)
        telling = number[where] <= COMMON
        hashes, owners = hashes[telling], owners[telling]
        return cls(hashes, owners, np.bincount(owners, minlength=len(lengths)))

    def near(self, tokens: Tokens, lengths: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
        """Which documents share at least `share` of their runs, or of a held-out document's, with that document.

        Of a document longer than `PART` tokens each part is looked at, so that memory does not grow with it.
        """
        number = np.maximum(1, -(-lengths // PART))
        document = np.repeat(np.arange(len(lengths)), number)
        within = np.arange(len(document)) - np.repeat(np.cumsum(number) - number, number)
        sizes = np.minimum(PART, lengths[document] - PART * within)
        ends = np.cumsum(sizes)
        near = np.zeros(len(lengths), bool)
        for group in np.split(np.arange(len(sizes)), np.flatnonzero(np.diff(ends // PART)) + 1) if len(sizes) else []:
            begin = int(ends[group[0]] - sizes[group[0]])
            found = self._near_parts(tokens[begin : int(ends[group[-1]])], sizes[group], share)
            near[document[group][found]] = True
        return near

    def _near_parts(self, tokens: Tokens, lengths: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
        hashes, owners = _runs(tokens, lengths)
        maybe = np.flatnonzero(self._table[hashes >> np.uint64(64 - TABLE_BITS)])
        at = np.searchsorted(self.runs, hashes[maybe])
        found = maybe[(at < len(self.runs)) & (self.runs[np.minimum(at, len(self.runs) - 1)] == hashes[maybe])]
        shared, ends = np.bincount(owners[found], minlength=len(lengths)), np.cumsum(np.maximum(lengths - RUN, 0))
        runs = np.diff(ends, prepend=0)
        near = np.zeros(len(lengths), bool)
        bounds = np.cumsum(shared)
        for document in np.flatnonzero((shared > 0) & (shared >= share * np.minimum(runs, SMALLEST))).tolist():
            mine = np.sort(hashes[found[bounds[document] - shared[document] : bounds[document]]])
            near[document] = self._near(mine, int(runs[document]), share)
        return near

    def _near(self, mine: Hashes, runs: int, share: float) -> bool:
        """Whether one held-out document holds enough of a document's `runs`, or the other way round.

        `mine` are those of its runs that any held-out document has, sorted.
        """
        first, last = np.searchsorted(self.runs, mine, "left"), np.searchsorted(self.runs, mine, "right")
        number = last - first
        at = np.repeat(first - np.cumsum(number) + number, number) + np.arange(number.sum())
        new = np.repeat(np.concatenate([[True], mine[1:] != mine[:-1]]), number)
        copied = np.bincount(self.owners[at], minlength=len(self.sizes)) >= share * runs
        quoted = np.bincount(self.owners[at[new]], minlength=len(self.sizes)) >= share * self.sizes
        return bool((copied | (quoted & (self.sizes >= SMALLEST))).any())

    @cached_property
    def _table(self) -> NDArray[np.bool_]:
        table = np.zeros(1 << TABLE_BITS, bool)
        table[self.runs >> np.uint64(64 - TABLE_BITS)] = True
        return table


def _runs(tokens: Tokens, lengths: NDArray[np.int64]) -> tuple[Hashes, NDArray[np.int64]]:
    """A hash of each run of RUN tokens inside one document, separators left out, and the document's number."""
    ends = np.cumsum(lengths)
    hashes = tokens.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    hashes ^= hashes >> np.uint64(29)
    # A polynomial over 2, 4, 8 tokens: each round joins two neighbours of the last one.
    factor, width = 0xBF58476D1CE4E5B9, 1
    while width < RUN:
        hashes = hashes[:-width] * np.uint64(factor) + hashes[width:]
        factor, width = factor * factor % 2**64, 2 * width
    hashes ^= hashes >> np.uint64(31)
    hashes *= np.uint64(0x94D049BB133111EB)
    number = np.maximum(lengths - RUN, 0)
    owners = np.repeat(np.arange(len(lengths)), number)
    within = np.arange(len(owners)) - np.repeat(np.cumsum(number) - number, number)
    return hashes[np.repeat(ends - lengths, number) + within], owners
