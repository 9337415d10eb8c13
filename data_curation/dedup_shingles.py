"""Hashes of many texts at once: of a whole text, of its runs of words, of its MinHash bands."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple, cast

import numpy as np
import rensa
import xxhash
from numpy.typing import NDArray

from data_curation.grams import SPLIT, fold, folded_words

Hashes = NDArray[np.uint64]

AT_ONCE = 1 << 16
"""Characters hashed at once: what is made of them fits into a processor's cache."""
_FACTOR = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: odd, its bits without a pattern
_INVERSE = pow(_FACTOR, -1, 2**64)
_PART, _SPLIT, _SPACE = 1, 2, 4


class Hashed(NamedTuple):
    """What texts are compared by."""

    exact: list[bytes]
    """16 bytes (xxh3-128) per text, equal for texts that differ in case or space at most."""
    shingles: Hashes
    """A hash for every run of words, the texts one after the other; runs that repeat come again."""
    starts: Hashes
    """Where each text's shingles start, and one entry more."""


def hash_texts(texts: Sequence[str], ngram: int) -> Hashed:
    """Hashes of the texts and of their runs of `ngram` words.

    A shorter text has one shingle, of all its words; a text without words none.
    """
    exact, hashes, counts = list[bytes](), list[Hashes](), list[NDArray[np.int64]]()
    for some in _batches([fold(text) for text in texts]):
        signs, kinds = _signs(some)
        exact += _exact(some, signs, kinds)
        shingles, number = _shingles(*_words(some, signs, kinds), ngram)
        hashes.append(shingles)
        counts.append(number)
    starts = np.cumsum(np.concatenate([np.zeros(1, dtype=np.int64), *counts])).astype(np.uint64)
    return Hashed(exact, np.concatenate([np.zeros(0, dtype=np.uint64), *hashes]), starts)


def band_hashes(hashed: Hashed, *, bands: int, rows: int, seed: int) -> Hashes:
    """One number per text and band, shape (texts, bands), each of the least values of `rows` hash functions.

    Two texts whose sets of shingles have the Jaccard index s agree in a band with probability s^rows, in any with
    1 - (1 - s^rows)^bands (Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, 3.4). All zero for a text without
    words.
    """
    shingles, starts = hashed.shingles, hashed.starts
    found = np.full((len(starts) - 1, bands), _FACTOR, dtype=np.uint64)
    # The hashes of one call depend on each other (their agreement varies by a third less than it should): each row
    # of the bands has a call of its own, so that those which must agree together are independent.
    for row in range(rows):
        minima = cast(Any, rensa).RMinHash.digest_matrix_from_flat_token_hashes(
            shingles, starts, bands, seed * rows + row
        )
        found = _mixed(found ^ np.asarray(minima.to_rows(), dtype=np.uint64).reshape(found.shape))
    found[starts[1:] == starts[:-1]] = 0
    return found


def _batches(texts: list[str]) -> list[list[str]]:
    found, size = list[list[str]](), 0
    for text in texts:
        if not found or size + len(text) > AT_ONCE:
            found.append([])
            size = 0
        found[-1].append(text)
        size += len(text) + 1
    return found


def _signs(texts: list[str]) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """The code points of the texts, a space before and behind each, and what kind each is of."""
    signs = np.frombuffer(f" {' '.join(texts)} ".encode("utf-32-le"), dtype="<u4")
    return signs, _kinds()[signs]


@cache
def _kinds() -> NDArray[np.uint8]:
    """For every code point: part of a word, part of one that needs the rule of `grams` to split it, space."""
    found = np.zeros(0x110000, dtype=np.uint8)
    signs = "".join(map(chr, range(len(found))))
    for pattern, kind in ((r"[^\W_]+", _PART), (r"\s+", _SPACE)):
        for run in re.finditer(pattern, signs):
            found[run.start() : run.end()] = kind
    for low, high in SPLIT:
        found[ord(low) : ord(high) + 1] = _PART | _SPLIT
    return found


def _ends(texts: list[str]) -> NDArray[np.int64]:
    """Where the space behind each text stands among its batch's signs."""
    return np.cumsum([len(text) + 1 for text in texts])


def _exact(texts: list[str], signs: NDArray[np.uint32], kinds: NDArray[np.uint8]) -> list[bytes]:
    """Hashes of the texts (as UTF-32) with every run of spaces as one space and none at their ends."""
    space = kinds == _SPACE
    # Of a run of spaces the first stays: of each text that is more than spaces, exactly one behind it.
    kept = np.flatnonzero(~(space[1:] & space[:-1])) + 1
    left = np.where(space, np.uint32(32), signs)[kept]
    stops = np.searchsorted(kept, _ends(texts), side="right")
    starts = np.concatenate([[0], stops[:-1]])
    return [
        xxhash.xxh3_128_digest(left[start : max(stop - 1, start)].tobytes())
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)
    ]


def _words(texts: list[str], signs: NDArray[np.uint32], kinds: NDArray[np.uint8]) -> tuple[Hashes, NDArray[np.int64]]:
    """A hash for every compared word of the texts, and the number of each text's words."""
    if (kinds & _SPLIT).any():
        hard = np.add.reduceat(kinds & _SPLIT, np.concatenate([[0], _ends(texts)[:-1]]), dtype=np.int64) > 0
        texts = [" ".join(folded_words(text)) if split else text for text, split in zip(texts, hard, strict=True)]
        signs, kinds = _signs(texts)
    part = (kinds & _PART).astype(np.int8)
    edges = np.flatnonzero(np.diff(part)) + 1
    starts, stops = edges[::2], edges[1::2]
    powers, inverses = _powers(len(signs))
    sums = np.cumsum(signs * powers, dtype=np.uint64)
    # A polynomial of the word's signs, whatever its place: sum of sign[i] * factor^(i - start).
    hashes = _mixed((sums[stops - 1] - sums[starts - 1]) * inverses[starts])
    return hashes, np.diff(np.searchsorted(starts, _ends(texts)), prepend=0)


@cache
def _table() -> tuple[Hashes, Hashes]:
    return _accumulated(_FACTOR, 2 * AT_ONCE), _accumulated(_INVERSE, 2 * AT_ONCE)


def _powers(number: int) -> tuple[Hashes, Hashes]:
    """The powers 0 ... number - 1 of the factor and of its inverse modulo 2^64."""
    if number <= 2 * AT_ONCE:
        powers, inverses = _table()
        return powers[:number], inverses
    return _accumulated(_FACTOR, number), _accumulated(_INVERSE, number)


def _accumulated(factor: int, number: int) -> Hashes:
    found = np.full(number, factor, dtype=np.uint64)
    found[0] = 1
    return np.multiply.accumulate(found)


def _shingles(words: Hashes, lengths: NDArray[np.int64], ngram: int) -> tuple[Hashes, NDArray[np.int64]]:
    """A hash for every run of `ngram` words of each text, and their number for each.

    A shorter text has one hash, of all its words; a text without words none. Runs that repeat come again.
    """
    number = np.where(lengths > ngram, lengths - ngram + 1, np.minimum(lengths, 1))
    ends = np.cumsum(lengths)
    rolled = words.copy()
    for step in range(1, ngram):
        stop = max(len(words) - step, 0)
        rolled[:stop] = rolled[:stop] * np.uint64(_FACTOR) + words[step:]
    for text in np.flatnonzero((lengths > 0) & (lengths < ngram)):
        value = 0
        for word in words[ends[text] - lengths[text] : ends[text]].tolist():
            value = (value * _FACTOR + word) % 2**64
        rolled[ends[text] - lengths[text]] = value
    within = np.arange(len(words)) - np.repeat(ends - lengths, lengths)
    return _mixed(rolled[within < np.repeat(number, lengths)]), number


def _mixed(values: Hashes) -> Hashes:
    """Every bit of a number spread over all of its bits (the finaliser of MurmurHash3)."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ (values >> np.uint64(33))
