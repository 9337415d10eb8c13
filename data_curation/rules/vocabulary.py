"""Chunks between spaces and their words as numbers, each distinct chunk split once, with what rules ask of words."""

import unicodedata
from collections.abc import Mapping, Sequence
from itertools import accumulate, chain
from typing import Any

import numpy as np
import numpy.typing as npt
from datatrove.utils.text import PUNCTUATION_SET
from spacy.pipeline.sentencizer import Sentencizer

from data_curation.words import Words

Integers = npt.NDArray[np.int64]
CHUNKS = 500_000
"""Chunks remembered per process, about 150 MB; all are forgotten when there are more."""
MARKS, LETTER, PERIOD, MIDDLE = 1, 2, 4, 8
"""Of a word: only punctuation (datatrove's set); holds a letter; ends a sentence; punctuation or end of a sentence."""
PERIODS = frozenset(Sentencizer.default_punct_chars)
"""What ends a sentence."""


class Vocabulary:
    """Chunks and words by number. Numbers differ from one process to the next; nothing may be derived from them."""

    def __init__(self, stop_words: Mapping[str, Sequence[str]]) -> None:
        self._stop_words = {language: {word: at for at, word in enumerate(ws)} for language, ws in stop_words.items()}
        self.listed = frozenset(language for language, words in stop_words.items() if words)
        self.clear()

    def clear(self) -> None:
        """Forget all chunks."""
        self._chunks: dict[str, dict[str, int]] = {}
        self._words: dict[str, dict[str, int]] = {}
        self.names: list[str] = []
        self.chunk_start, self.chunk_words, self.chunk_characters = _Column(), _Column(), _Column()
        self.spelling = _Column()  # the words of all chunks, one after the other
        self.characters, self.flags, self.stop = _Column(), _Column(), _Column()

    def tidy(self) -> None:
        """Forget all chunks if there are too many; numbers given before no longer hold."""
        if self.chunk_start.size + len(self.names) > CHUNKS * 2:
            self.clear()

    def chunks(self, language: str, chunks: Sequence[str]) -> list[int]:
        """The number of each chunk."""
        known = self._chunks.setdefault(language, {})
        try:
            return list(map(known.__getitem__, chunks))
        except KeyError:
            fresh = [chunk for chunk in dict.fromkeys(chunks) if chunk not in known]
        start = self.chunk_start.size
        split = list(Words.of(language).split(fresh))
        counts = list(map(len, split))
        ends = zip(accumulate(counts), counts, strict=True)
        self.chunk_start.extend([self.spelling.size + end - size for end, size in ends])
        self.chunk_words.extend(counts)
        self.chunk_characters.extend(list(map(len, fresh)))
        self.spelling.extend(self.words(language, list(chain.from_iterable(split))))
        known.update(zip(fresh, range(start, self.chunk_start.size), strict=True))
        return list(map(known.__getitem__, chunks))

    def words(self, language: str, words: Sequence[str]) -> list[int]:
        """The number of each word."""
        known = self._words.setdefault(language, {})
        fresh = [word for word in dict.fromkeys(words) if word not in known]
        if fresh:
            stop, start = self._stop_words.get(language, {}), len(self.names)
            known.update(zip(fresh, range(start, start + len(fresh)), strict=True))
            self.names += fresh
            self.characters.extend(list(map(len, fresh)))
            self.flags.extend(list(map(_flags, fresh)))
            self.stop.extend([stop.get(word, -1) for word in fresh])
        return list(map(known.__getitem__, words))

    def spelled(self, numbers: Integers) -> Integers:
        """The words of a row of chunks, as one row."""
        counts = self.chunk_words.values[numbers]
        ends = np.cumsum(counts)
        shift = np.repeat(self.chunk_start.values[numbers] - ends + counts, counts)
        return self.spelling.values[shift + np.arange(len(shift))]


def _flags(word: str) -> int:
    if word.isalpha():
        return LETTER
    period = word in PERIODS
    flags = MARKS * PUNCTUATION_SET.issuperset(word) | LETTER * any(map(str.isalpha, word)) | PERIOD * period
    return flags | MIDDLE * (period or all(unicodedata.category(mark)[0] == "P" for mark in word))


class _Column:
    """Whole numbers in an array that grows."""

    def __init__(self) -> None:
        self._data: Integers = np.zeros(1024, np.int64)
        self.size = 0

    def extend(self, values: Sequence[int]) -> None:
        """More of them."""
        end = self.size + len(values)
        if end > len(self._data):
            self._data = np.concatenate([self._data, np.zeros(max(len(self._data), len(values)), np.int64)])
        self._data[self.size : end] = values
        self.size = end

    @property
    def values(self) -> Any:
        """All so far."""
        return self._data[: self.size]
