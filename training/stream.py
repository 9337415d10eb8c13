"""The order in which documents are read: one endless stream per phase, any token of it found directly.

Documents of one source and length class form a pool. A pool has one permutation per epoch: shards in a random order,
documents in a random order inside each, so that a stretch of the stream touches few shards. A phase mixes its pools at
fixed shares: a document comes when the middle of it is due, so documents stay whole and no pool falls behind. A later
phase goes on in every pool where the earlier ones left it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from data_curation.settings import canonical
from data_curation.shard_index import length_class
from data_curation.shards import Shards
from training.mixing import MixConfig, Pool, epochs, shares

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Span:
    """What one phase takes from the stream."""

    seq_len: int
    tokens: int
    mix: MixConfig


@dataclass(frozen=True)
class Reached:
    """How far the pools are: tokens that each has given, in all epochs together, and up to where it was due."""

    taken: list[int]
    places: list[float]


class Stream:
    """Documents in the order of training. Holds about 30 bytes a document; tokens are not touched."""

    def __init__(self, shards: Shards, seed: int, spans: Sequence[Span]) -> None:
        self.shards, self.seed, self.spans = shards, seed, list(spans)
        number = shards.sources.astype(np.int64) * 64 + length_class(shards.lengths)
        order = np.argsort(number, kind="stable")
        names, first = np.unique(number[order], return_index=True)
        self._members = np.split(order, first[1:])
        self._sizes = [int(shards.lengths[members].sum()) for members in self._members]
        self.pools: dict[Pool, int] = {
            (shards.index.sources[int(name) // 64], int(name) % 64): size
            for name, size in zip(names, self._sizes, strict=True)
        }
        """Tokens of each pool."""
        self._shares = [shares(span.mix, span.seq_len, self.pools) for span in self.spans]
        self._epoch = lru_cache(2 * len(self._sizes))(self._make_epoch)
        self._start = lru_cache(None)(self._make_start)

    def stretch(self, phase: int, start: int, stop: int) -> tuple[Numbers, Numbers, Numbers]:
        """Documents, first tokens and sizes that make up tokens `start` to `stop` of a phase, pool by pool."""
        bounds = zip(self._reached(phase, start).taken, self._reached(phase, stop).taken, strict=True)
        found = [self._between(pool, begin, end) for pool, (begin, end) in enumerate(bounds) if end > begin]
        documents, begins, sizes = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
        return documents, begins, sizes

    def epochs(self, phase: int, tokens: int) -> dict[str, float]:
        """How often each source's most repeated documents are read up to a token of a phase."""
        read = [(float(span.tokens), share) for span, share in zip(self.spans, self._shares, strict=True)]
        return epochs([*read[:phase], (float(tokens), self._shares[phase])], self.pools)

    def _make_start(self, phase: int) -> "Reached":
        if phase == 0:
            return Reached([0] * len(self._sizes), [0.0] * len(self._sizes))
        return self._reached(phase - 1, self.spans[phase - 1].tokens)

    def _reached(self, phase: int, tokens: int) -> "Reached":
        """Where every pool stands when a phase has given `tokens`: after whole documents, but for one that is cut."""
        start, rates = self._start(phase), list(self._shares[phase].values())
        if tokens == 0:
            return start
        wanted = sum(start.taken) + tokens

        def due(time: float) -> list[int]:
            pools = zip(start.taken, start.places, rates, strict=True)
            return [self._due(pool, *one, time) for pool, one in enumerate(pools)]

        # At time t about t tokens are given. Bisection by whole documents, then one by one.
        slack, low, first = 1 << 16, start.taken, 0.0
        while tokens > slack and sum(low := due(tokens - slack)) > wanted:
            slack *= 2
        first = float(max(0, tokens - slack))
        low = low if first else start.taken
        while sum(due(tokens + slack)) < wanted:
            slack *= 2
        last = float(tokens + slack)
        while last - first > 1:
            middle = (first + last) / 2
            if sum(some := due(middle)) <= wanted:
                first, low = middle, some
            else:
                last = middle
        taken, time = self._fill(low, due(last), start.places, rates, wanted - sum(low), first)
        return Reached(taken, [place + rate * time for place, rate in zip(start.places, rates, strict=True)])

    def _fill(
        self,
        low: list[int],
        high: list[int],
        places: Sequence[float],
        rates: Sequence[float],
        tokens: int,
        time: float,
    ) -> tuple[list[int], float]:
        """Take `tokens` more than at `low`, of the documents up to `high` in the order of their time; and that time."""
        waiting: list[tuple[float, int, int]] = []
        for pool, (begin, end) in enumerate(zip(low, high, strict=True)):
            if end > begin:
                documents, _, sizes = self._between(pool, begin, end)
                middles = begin + np.cumsum(sizes) - self.shards.lengths[documents] / 2
                times = (middles - places[pool]) / rates[pool]
                waiting += zip(times.tolist(), [pool] * len(times), sizes.tolist(), strict=True)
        taken = list(low)
        for due, pool, size in sorted(waiting):
            if tokens > 0:
                taken[pool] += min(size, tokens)
                time = due
            tokens -= size
        return taken, time

    def _due(self, pool: int, taken: int, place: float, rate: float, time: float) -> int:
        """Tokens of a pool that are given at a time: up to the last document whose middle is due."""
        if not rate:
            return taken
        place += rate * time
        size = self._sizes[pool]
        epoch = int(place // size)
        _, ends = self._epoch(pool, epoch)
        at = min(int(np.searchsorted(ends, place - epoch * size, "right")), len(ends) - 1)
        first, last = epoch * size + (int(ends[at - 1]) if at else 0), epoch * size + int(ends[at])
        return max(taken, last if (first + last) / 2 < place else first)

    def _between(self, pool: int, begin: int, end: int) -> tuple[Numbers, Numbers, Numbers]:
        """Documents, first tokens and sizes from `begin` to `end` of a pool, over as many epochs as it takes."""
        found: list[tuple[Numbers, Numbers, Numbers]] = []
        while begin < end:
            epoch, low = divmod(begin, self._sizes[pool])
            high = min(low + end - begin, self._sizes[pool])
            order, ends = self._epoch(pool, epoch)
            first, last = int(np.searchsorted(ends, low, "right")), int(np.searchsorted(ends, high, "left"))
            documents = order[first : last + 1]
            sizes = self.shards.lengths[documents]
            begins = np.zeros_like(sizes)
            begins[0] = low - (ends[first] - sizes[0])
            sizes[-1] -= ends[last] - high
            sizes[0] -= begins[0]
            found.append((documents, begins, sizes))
            begin += high - low
        documents, begins, sizes = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
        return documents, begins, sizes

    def _make_epoch(self, pool: int, epoch: int) -> tuple[Numbers, Numbers]:
        """A pool's documents in the order of an epoch, and the token at which each of them ends."""
        members = self._members[pool]
        ranks = np.argsort(permutation(len(self.shards.index.shards), self.seed, epoch, 0))
        key = ranks[self.shards.shard_of(members)].astype(np.uint64) << np.uint64(40)
        key |= mixed(members, self.seed, epoch, 1) >> np.uint64(24)
        order = members[np.argsort(key, kind="stable")]
        return order, np.cumsum(self.shards.lengths[order])


def permutation(size: int, *words: int) -> Numbers:
    """A random order of 0 .. size - 1 that follows from the words alone, in every numpy release."""
    return np.argsort(mixed(np.arange(size), *words), kind="stable").astype(np.int64)


def mixed(numbers: Numbers, *words: int) -> NDArray[np.uint64]:
    """A random 64-bit number for each number and the words (splitmix64; Steele et al. 2014)."""
    start = int.from_bytes(sha256(canonical(list(words))).digest()[:8], "little")
    mixed = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(start)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
