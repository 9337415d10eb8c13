"""Evaluation texts in the words of one document: whole, lightly edited, or a long run of one."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any, NamedTuple

import numpy as np

from data_curation.decontaminate import DecontaminateConfig
from data_curation.evaluation_index import Array, Index, gram_hashes, numbers, text_hashes, word_hashes

WHOLE, NEAR, RUN, COMMON = "whole", "near", "run", "common"
TEXTS = (WHOLE, NEAR)
"""Kinds of finds that hold a text, not a part of it."""

DENSE = 1000
"""Anchors that document and text share, above which one word or line is repeated: runs may not overlap there, since
their number would grow with the square of the repetitions."""
_Seed = tuple[int, int, bool]
"""An anchor that document and text share: its place in each, in words, and whether it is rare."""


class Find(NamedTuple):
    """Where a document holds an evaluation text."""

    start: int
    """First word in the document."""
    end: int
    """One past the last."""
    item: int
    """Number of the evaluation text."""
    kind: str
    """`whole`, `near` (enough of its words in order), `run` (`ngram` of its words), `common` (a run not rare)."""
    share: float
    """Share of the text's words that stand there in order."""


class Matcher:
    """Finds evaluation texts in documents. `documents[a]` is the number of documents that anchor `a` stands in."""

    def __init__(self, config: DecontaminateConfig, index: Index, documents: Array) -> None:
        self.config, self.index = config, index
        self.rare = documents <= config.common_documents
        many = np.repeat(documents, np.diff(index.starts))
        rarest = np.full(len(index.texts), np.iinfo(np.int64).max)
        np.minimum.at(rarest, index.items, many)
        # A text without a rare anchor is looked for by its rarest ones, so that none is out of reach.
        self.usable = np.repeat(self.rare, np.diff(index.starts)) | (many == rarest[index.items])
        self.starting = np.zeros(len(index.anchors), dtype=bool)
        self.starting[np.repeat(np.arange(len(index.anchors)), np.diff(index.starts))[self.usable]] = True

    def limit(self, item: int) -> int:
        """In more documents than this an evaluation text that stands whole is a common phrase, or a licence."""
        short = len(self.index.words(item)[0]) < self.config.ngram
        return self.config.common_documents if short else self.config.common_texts

    def suspects(self, text: str) -> bool:
        """Whether a document has finds, as far as the hashes of its words tell, in a quarter of the time."""
        hashes = text_hashes(text)
        seeds = self._seeds(hashes)
        listed = numbers(hashes).tolist() if seeds else []
        return any(True for item, some in seeds.items() for _ in self._of_item(listed, item, some, 1))

    def finds(self, listed: Sequence[str]) -> list[Find]:
        """All finds in a document given as its compared words, in order of their places."""
        seeds = self._seeds(word_hashes(listed))
        return sorted(find for item, some in seeds.items() for find in self._of_item(listed, item, some, 0))

    def _seeds(self, hashes: bytes) -> dict[int, list[_Seed]]:
        """For each text of which a usable anchor stands in the document, all of these."""
        hits, anchors = self.index.lookup(gram_hashes([hashes], self.index.anchor).hashes)
        if not self.starting[anchors].any():
            return {}
        which, places = self.index.places(anchors)
        usable = self.usable[places]
        columns = (self.index.items[places], hits[which], self.index.offsets[places], self.rare[anchors[which]])
        seeds: dict[int, list[_Seed]] = defaultdict(list)
        for item, start, offset, rare in zip(*(column[usable].tolist() for column in columns), strict=True):
            seeds[item].append((start, offset, rare))
        return seeds

    def _of_item(self, listed: Sequence[Any], item: int, seeds: list[_Seed], form: int) -> Iterator[Find]:
        """Finds of one text; document and text are given as words (`form` 0) or as their hashes (1)."""
        text = self.index.words(item)[form]
        slack = allowed(len(text), self.config.near)
        need = len(text) - (slack if len(text) >= self.config.ngram else slack // 2)
        runs, whole = _runs(listed, text, seeds, self.index.anchor), list[Find]()
        for group in _groups(runs, slack):
            most = max(group, key=lambda run: run.end - run.start)
            if most.end - most.start >= need:
                stand = most.end - most.start
                kind = WHOLE if stand == len(text) else NEAR
                whole.append(Find(most.start, most.end, item, kind, stand / len(text)))
            elif slack:
                first = max(group[0].begin - slack, 0)
                window = listed[first : group[-1].begin + len(text) + slack]
                # The quick count is never below the careful one, and mostly far from what is needed.
                if common_subsequence(window, text) >= need:
                    start, end, stand = in_order(window, text)
                    if stand >= need:
                        whole.append(Find(first + start, first + end, item, NEAR, stand / len(text)))
        yield from whole
        for run in runs:
            inside = any(find.start <= run.start and run.end <= find.end for find in whole)
            if run.end - run.start >= self.config.ngram and not inside:
                share = (run.end - run.start) / len(text)
                yield Find(run.start, run.end, item, RUN if run.rare else COMMON, share)


def allowed(length: int, near: float) -> int:
    """Words of a text of `length` that may be missing, or that others may stand between."""
    return int((1 - near) * length + 1e-9)


class _Run(NamedTuple):
    """A run of words that document and text share, as long as it goes."""

    begin: int
    """Where in the document the text would begin, did all of it stand there."""
    start: int
    end: int
    rare: bool


def _runs(listed: Sequence[Any], text: Sequence[Any], seeds: Sequence[_Seed], anchor: int) -> list[_Run]:
    """The runs around equal anchors (seeds: places in document and text, whether rare), by where the text begins.

    Seeds are verified: what only has an equal hash is left out.
    """
    runs: dict[tuple[int, int], _Run] = {}
    ends: dict[int, tuple[int, int]] = {}
    dense = len(seeds) > DENSE
    after = -1  # the end of the last whole text: what begins within it is the same text again
    for start, offset, rare in sorted(seeds):
        begin = start - offset
        key, known = ends.get(begin, (0, -1))
        if start < known:
            runs[begin, key] = runs[begin, key]._replace(rare=rare or runs[begin, key].rare)
            continue
        if start < after or listed[start : start + anchor] != text[offset : offset + anchor]:
            continue
        first, last = start, start + anchor
        while first > max(begin, 0) and listed[first - 1] == text[first - 1 - begin]:
            first -= 1
        while last < min(begin + len(text), len(listed)) and listed[last] == text[last - begin]:
            last += 1
        runs[begin, first] = _Run(begin, first, last, rare)
        ends[begin] = (first, last)
        after = last if dense or last - first == len(text) else after
    return sorted(runs.values())


def _groups(runs: Sequence[_Run], slack: int) -> Iterator[list[_Run]]:
    """Runs that can belong to one copy of the text: words put in or left out move the later ones a little."""
    group: list[_Run] = []
    for run in runs:
        if group and run.begin - group[0].begin > slack:
            yield group
            group = []
        group.append(run)
    if group:
        yield group


def in_order(window: Sequence[Any], text: Sequence[Any]) -> tuple[int, int, int]:
    """From where to where in the window words of the text stand in its order, and how many of them.

    The span begins and ends with words that stand side by side in the text too: single ones ("the", "of") are anywhere,
    and the words around a part of the text would make it a whole.
    """
    blocks = SequenceMatcher(None, window, text, autojunk=False).get_matching_blocks()
    runs = [number for number, block in enumerate(blocks) if block.size > 1]
    if not runs:
        return 0, 0, 0
    inside = blocks[runs[0] : runs[-1] + 1]
    return inside[0].a, inside[-1].a + inside[-1].size, sum(block.size for block in inside)


def common_subsequence(window: Sequence[Any], text: Sequence[Any]) -> int:
    """Length of the longest common subsequence.

    Bit-parallel: one addition for each word of the window (Hyyrö 2004, "Bit-parallel LCS-length computation").
    """
    masks: dict[Any, int] = {}
    for place, word in enumerate(text):
        masks[word] = masks.get(word, 0) | 1 << place
    full = state = (1 << len(text)) - 1
    for mask in filter(None, map(masks.get, window)):
        both = state & mask
        state = ((state + both) | (state - both)) & full
    return len(text) - state.bit_count()
