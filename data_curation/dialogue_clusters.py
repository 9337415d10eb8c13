"""Clusters of nearly equal conversations and prompts, by `dedup`'s MinHash and a check of every pair it suspects."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from data_curation.dedup_clusters import Labels, Rows, join, repeats
from data_curation.dedup_shingles import Hashed, Hashes, band_hashes, hash_texts
from data_curation.dialogue_rows import Dialogue, Drops
from data_curation.dialogues import Near

ROUNDS = 8
"""Comparisons of a band's equal rows, each with the first of those that were like none before: what is common to many
texts ("how do I ...") fills a band with rows that are not alike."""


def unique(near: Near | None, dialogues: Iterable[Dialogue], drops: Drops) -> list[Dialogue]:
    """One of each cluster of equal or nearly equal conversations: the longest, of equals the one of the smallest id.

    Nearly equal are those of which what was asked is alike, and every side of what was answered as well: a long prompt
    that stays the same says nothing of the replies. Tasks of different expected answers are different ones.
    """
    different: dict[str, Dialogue] = {}
    for dialogue in dialogues:
        known = different.setdefault(dialogue.id, dialogue)
        if known is not dialogue:
            # A task is more than the conversation in it, whichever comes first.
            different[dialogue.id], other = sorted((known, dialogue), key=_task_first)
            drops.drop("dedup", "exact repeat", other)
    rows = list(different.values())
    if near is None or not rows:
        return rows
    expected: dict[str, int] = {}
    kinds = np.array([expected.setdefault(row.expected, len(expected)) for row in rows])
    asked, answered, rejected = ([getattr(row, name) for row in rows] for name in ("asked", "answered", "rejected"))
    parts = [asked, answered, rejected] if any(rejected) else [asked, answered]
    labels = clusters(parts, near, kinds).tolist()
    best = dict[int, Dialogue]()
    for label, row in zip(labels, rows, strict=True):
        known = best.get(label)
        if known is None or (-row.size, row.id) < (-known.size, known.id):
            best[label] = row
    for label, row in zip(labels, rows, strict=True):
        if best[label] is not row:
            drops.drop("dedup", "near-duplicate", row)
    return [row for label, row in zip(labels, rows, strict=True) if best[label] is row]


def prompt_names(near: Near | None, dialogues: Sequence[Dialogue]) -> dict[str, tuple[str, int]]:
    """Prompt -> the prompt that its cluster is named by, the first of all by alphabet, and the cluster's dialogues."""
    many = Counter(dialogue.prompt for dialogue in dialogues)
    prompts = sorted(many)
    if near is None or not prompts:
        return {prompt: (prompt, number) for prompt, number in many.items()}
    labels = clusters([prompts], near).tolist()
    names, sizes = dict[int, str](), Counter[int]()
    for label, prompt in zip(labels, prompts, strict=True):
        names.setdefault(label, prompt)
        sizes[label] += many[prompt]
    return {prompt: (names[label], sizes[label]) for label, prompt in zip(labels, prompts, strict=True)}


def clusters(parts: Sequence[Sequence[str]], near: Near, kinds: NDArray[np.int64] | None = None) -> Labels:
    """The cluster of each row, given as columns of texts: joined are those that are alike, through any chain.

    Alike are rows of one of the `kinds` whose sets of runs of words are alike enough in every column. Suspected are
    those that agree in a band of all their texts together. Where many share one long text, those bands tell nothing:
    rows that agree in a band of every column are compared first.
    """
    columns = [_Column(texts, near) for texts in parts]
    signatures = [column.bands for column in columns]
    if len(parts) > 1:
        signatures.append(_bands(hash_texts(["\n".join(row) for row in zip(*parts, strict=True)], near.ngram), near))
    same = [] if kinds is None else [kinds.astype(np.uint64)]
    labels = np.arange(len(parts[0]), dtype=np.int32)
    for band in range(near.bands):
        whole = signatures[-1].T[band]
        for keys in ([one.T[band] for one in signatures[:-1]], [whole]):
            rows: Rows = np.flatnonzero(whole)
            for _ in range(ROUNDS if keys else 0):
                first, again = repeats(rows, *keys, *same)
                alike = labels[first] == labels[again]
                likely = ~alike
                for column in columns:
                    likely &= column.suspects(first, again, near)
                for place in np.flatnonzero(likely):
                    alike[place] = all(column.alike(first[place], again[place], near) for column in columns)
                labels = join(labels, first[alike], again[alike])
                rows = np.sort(again[~alike])
                if len(rows) < 2:
                    break
    return labels


class _Column:
    """Texts with what they are compared by."""

    def __init__(self, texts: Sequence[str], near: Near) -> None:
        hashed = hash_texts(texts, near.ngram)
        bounds = pairwise(hashed.starts.astype(np.int64).tolist())
        self.bands = _bands(hashed, near)
        self.exact = hashed.exact
        self.sets = [np.unique(hashed.shingles[start:end]) for start, end in bounds]
        self.sizes = np.array([len(one) for one in self.sets])

    def suspects(self, left: Rows, right: Rows, near: Near) -> NDArray[np.bool_]:
        """Which pairs may be alike: they agree in a band, and sets of very different sizes can not be."""
        small = np.minimum(self.sizes[left], self.sizes[right])
        large = np.maximum(self.sizes[left], self.sizes[right])
        return (small >= near.similarity * large) & (self.bands[left] == self.bands[right]).any(axis=1)

    def alike(self, left: np.int64, right: np.int64, near: Near) -> bool:
        """Whether two texts are: without words in them, when they are equal."""
        if not self.sizes[left] and not self.sizes[right]:
            return self.exact[left] == self.exact[right]
        return similarity(self.sets[left], self.sets[right]) >= near.similarity


def _bands(hashed: Hashed, near: Near) -> Hashes:
    return band_hashes(hashed, bands=near.bands, rows=near.rows, seed=1)


def _task_first(dialogue: Dialogue) -> tuple[bool, str]:
    return not dialogue.task, dialogue.expected


def similarity(left: Hashes, right: Hashes) -> float:
    """The Jaccard index of two sets, given as sorted arrays."""
    shared = len(np.intersect1d(left, right, assume_unique=True))
    return shared / max(len(left) + len(right) - shared, 1)
