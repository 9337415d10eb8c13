"""Runs of n words that a text holds more than once, for growing n over many texts at a time."""

from typing import NamedTuple

import numpy as np

from data_curation.rules.vocabulary import Integers

_BITS = 21
"""Three numbers of this many bits go into one that sorts fast: enough for two million words at a time."""


class Top(NamedTuple):
    """The run that is found most often in each text, the first of equals."""

    times: Integers
    at: Integers
    """Position of its first word; meaningless where the text is shorter."""


class Repeats:
    """All runs of `n` words found twice or more within one text.

    Every run is named by the position where it first stands, so a run of n + 1 words is the pair of names of the two
    runs of n in it, and only positions where both are repeated can hold a repeated one: no text is hashed.
    """

    def __init__(self, word: Integers, start: Integers) -> None:
        """`word`: numbers of the words of all texts; `start`: where each text starts, and the end of the last."""
        self.size, self.start, self.n = len(word), start, 1
        self.text: Integers = np.repeat(np.arange(len(start) - 1), np.diff(start))
        self.end: Integers = start[1:][self.text]
        self._group(self.text, word, np.arange(self.size))

    def grow(self, kept: "np.ndarray | None" = None) -> None:
        """Go on to runs of one word more; `kept` says of each text whether it is still looked at."""
        at = self.at
        if kept is not None:
            at = at[kept[self.text[at]]]
        at = at[at + self.n < self.end[at]]
        at = at[self._name[at + 1] >= 0]
        left, right = self._name[at], self._name[at + 1]
        self.n += 1
        self._group(left, right, at)

    def _group(self, left: Integers, right: Integers, at: Integers) -> None:
        """Find which positions hold equal pairs; `left` grows from text to text."""
        if self.size < 2**_BITS and (not len(right) or int(right.max()) < 2**_BITS):
            packed = np.sort((left << 2 * _BITS) | (right << _BITS) | at)
            pair, at = packed >> _BITS, packed & (2**_BITS - 1)
        else:
            order = np.lexsort((at, right, left))
            at = at[order]
            fresh = np.concatenate([[True], (np.diff(left[order]) != 0) | (np.diff(right[order]) != 0)])[: len(at)]
            pair = np.cumsum(fresh)
        begins = np.flatnonzero(np.concatenate([[True], pair[1:] != pair[:-1]])[: len(pair)])
        counts = np.diff(np.concatenate([begins, [len(pair)]]))
        twice = counts > 1
        self.first: Integers = at[begins[twice]]
        """First position of every repeated run, text after text."""
        self.count: Integers = counts[twice]
        self._name: Integers = np.full(self.size + 1, -1)
        self._name[at[np.repeat(twice, counts)]] = np.repeat(self.first, self.count)
        self.at: Integers = np.flatnonzero(self._name >= 0)
        """Positions of all repeated runs, in order."""

    def top(self) -> Top:
        """The run found most often in each text."""
        texts = len(self.start) - 1
        count, at = np.ones(texts, np.int64), self.start[:-1].copy()
        if len(self.first):
            rank = (self.count << 32) | (2**32 - 1 - self.first)
            text = self.text[self.first]
            heads = np.flatnonzero(np.concatenate([[True], text[1:] != text[:-1]]))
            best = np.maximum.reduceat(rank, heads)
            count[text[heads]], at[text[heads]] = best >> 32, 2**32 - 1 - (best & (2**32 - 1))
        return Top(count, at)

    def later(self) -> Integers:
        """Positions of runs that stood earlier in their text."""
        return self.at[self._name[self.at] != self.at]

    def covered(self, characters: Integers) -> Integers:
        """Characters of each text in words that belong to a run that stood earlier."""
        later, change = self.later(), np.zeros(self.size + 1, np.int64)
        change[later] += 1
        change[later + self.n] -= 1
        total = np.concatenate([[0], np.cumsum(np.where(np.cumsum(change)[:-1] > 0, characters, 0))])
        return total[self.start[1:]] - total[self.start[:-1]]

    def skipped(self, text: int, sums: Integers) -> int:
        """Characters in repeated runs of one text, each counted once: reading goes on behind a run that is known.

        `sums`: characters before each word and after the last one. A run inside a part that was jumped over is not
        known by it, which is why positions have to be walked.
        """
        low, high = np.searchsorted(self.at, self.start[text : text + 2])
        at = self.at[low:high]
        known, found, free = set[int](), 0, 0
        for position, name, size in zip(
            at.tolist(), self._name[at].tolist(), (sums[at + self.n] - sums[at]).tolist(), strict=True
        ):
            if position < free:
                continue
            if name in known:
                found += size
                free = position + self.n
            else:
                known.add(name)
        return found
