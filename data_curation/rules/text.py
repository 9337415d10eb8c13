"""Documents as the rules see them: split once into lines, chunks and words, many documents in one array."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from data_curation.rules.vocabulary import MIDDLE, PERIOD, PERIODS, Integers, Vocabulary
from data_curation.words import Words


@dataclass(slots=True)
class Text:
    """One document. Rules that take lines out write what is left into `left`."""

    text: str
    language: str
    lines: list[str] = field(init=False)
    """By str.splitlines."""
    chunks: int = field(init=False)
    """Runs of characters between spaces."""
    left: str = field(init=False)
    left_words: int = field(default=-1)
    """Words of what is left, -1 where nobody has counted them."""
    live: bool = True
    """Whether no rule has dropped it yet."""
    marks: dict[str, str] = field(default_factory=dict[str, str])
    """Passages that a measure came across, by reason."""

    def __post_init__(self) -> None:
        self.lines, self.left = self.text.splitlines(), self.text


_MARKS = "".join(map(re.escape, sorted(PERIODS)))
GAP = re.compile(rf"[{_MARKS}](?:[^\w\s]| (?=[^\w\s]))*(?:[^\S\n]{{2,}}|[^\S \n])(?:[^\w\s]|\Z)")
"""Spaces that spaCy takes for a word, and so for the beginning of a sentence, where marks or nothing may follow."""


class Batch:
    """Documents of any languages, their words in one row of numbers."""

    def __init__(self, texts: Sequence[Text], vocabulary: Vocabulary) -> None:
        self.texts, self.vocabulary = texts, vocabulary
        vocabulary.tidy()
        chunks, per_line, whole = list[list[int]](), list[int](), dict[int, list[int]]()
        known = list[int]()
        for index, text in enumerate(texts):
            split = list(map(str.split, text.lines))
            counts = list(map(len, split))
            text.chunks = sum(counts)
            if Words.of(text.language).by_chunk:
                chunks.append(vocabulary.chunks(text.language, list(chain.from_iterable(split))))
                known += counts
            else:  # its words are no words of chunks: all of them count as its first line's
                whole[index] = vocabulary.words(text.language, Words.of(text.language).word_tokenize(text.text))
                chunks.append([])
                known += [0] * len(counts)
            per_line += counts
        self._whole = whole
        self._lay(chunks, known)
        self.line_chunks: Integers = np.asarray(per_line, np.int64)
        """Chunks of each line, of which those of whole texts are not among `chunk`."""

    def _lay(self, chunks: list[list[int]], per_line: list[int]) -> None:
        numbers = np.fromiter(chain.from_iterable(chunks), np.int64, sum(map(len, chunks)))
        ends = np.concatenate([[0], np.cumsum(self.vocabulary.chunk_words.values[numbers])])
        at = np.concatenate([[0], np.cumsum(per_line, dtype=np.int64)])
        self.chunk: Integers = numbers
        self.chunk_line: Integers = at
        self.line_start: Integers = ends[at]
        self.line_kept = np.ones(len(per_line), bool)
        """Lines that no rule has taken out."""
        self.text_line: Integers = np.concatenate(
            [[0], np.cumsum([len(text.lines) for text in self.texts], dtype=np.int64)]
        )
        self.word: Integers = self.vocabulary.spelled(numbers)
        self.start: Integers = self.line_start[self.text_line]
        for index, words in self._whole.items():
            self._insert(index, words)
        self.characters: Integers = self.vocabulary.characters.values[self.word]
        self.flags: Integers = self.vocabulary.flags.values[self.word]

    def _insert(self, index: int, words: list[int]) -> None:
        """Put the words of a whole text where its chunks would be."""
        at, line = int(self.start[index]), int(self.text_line[index])
        self.word = np.insert(self.word, at, words)
        self.start[index + 1 :] += len(words)
        self.line_start[line + 1 :] += len(words)

    def sums(self, values: npt.NDArray[Any]) -> Integers:
        """The sum over each text of one value per word."""
        total = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
        return total[self.start[1:]] - total[self.start[:-1]]

    def counts(self) -> Integers:
        """Words of each text."""
        return np.diff(self.start)

    def lines_of(self, index: int) -> slice:
        """Where the lines of one text lie among all."""
        return slice(int(self.text_line[index]), int(self.text_line[index + 1]))

    def leave(self, index: int, lines: Sequence[str | None]) -> None:
        """Write down what is left of a text: its lines, None where one is taken out. Blank lines part paragraphs."""
        text, parts, gap = self.texts[index], list[str](), ""
        for line, was in zip(lines, text.lines, strict=True):
            if line is None or not was or was.isspace():
                gap = "\n\n" if parts and (not was or was.isspace()) else gap
            else:
                parts += gap, line
                gap = "\n"
        text.left, text.left_words = "".join(parts).strip(), -1

    def by_chunk(self, index: int) -> bool:
        """Whether the words of a text are those of its chunks."""
        return index not in self._whole

    def by_line(self, index: int) -> bool:
        """Whether `sentences` tells the sentences of a text's lines."""
        if index in self._whole:
            return False
        text = self.texts[index]
        # The search is slow, and few lines have other spaces than single ones, none of which count as printable.
        odd = (line for line in text.lines if "  " in line or not line.isprintable())
        return not any(map(GAP.search, odd))

    def words_left(self, index: int) -> int:
        """Words of what is left of one text."""
        text = self.texts[index]
        if text.left is text.text:
            return int(self.start[index + 1] - self.start[index])
        if text.left_words < 0 and index in self._whole:
            text.left_words = len(Words.of(text.language).word_tokenize(text.left))
        elif text.left_words < 0:
            text.left_words = len(self.vocabulary.spelled(self._numbers(text, text.left)))
        return text.left_words

    def sentences_of(self, text: Text, line: str) -> int:
        """Sentences of one line that is no longer as it came, or holds a gap that opens one; one at least."""
        if not Words.of(text.language).by_chunk or GAP.search(line):
            return max(1, len(Words.of(text.language).span_tokenize(line)))
        words = self.vocabulary.spelled(self._numbers(text, line))
        flags = self.vocabulary.flags.values[words].tolist()
        count, seen = 1, False
        for at, flag in enumerate(flags):
            if flag & PERIOD:
                seen = True
            elif seen and not flag & MIDDLE:
                count, seen = count + (at > 0), False
        return count

    def _numbers(self, text: Text, part: str) -> Integers:
        return np.array(self.vocabulary.chunks(text.language, part.split()), np.int64)

    def sentences(self) -> Integers:
        """Sentences of each line, as spaCy's sentencizer parts them: before what follows a period, marks skipped."""
        middle = (self.flags & MIDDLE) > 0
        periods = np.concatenate([[0], np.cumsum((self.flags & PERIOD) > 0)])
        plain = np.flatnonzero(~middle)
        line = np.searchsorted(self.line_start, plain, side="right") - 1
        before = np.concatenate([[0], plain[:-1] + 1])[: len(plain)]
        opens = periods[plain] > periods[np.maximum(before, self.line_start[line])]
        # A line's own first word opens a sentence whatever it is.
        opens &= plain > self.line_start[line]
        found = np.bincount(line[opens], minlength=len(self.line_start) - 1)
        return found + (np.diff(self.line_start) > 0)
