"""Clusters of nearly equal texts of chat length, by `dedup`'s MinHash and a check of every pair it suspects."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from data_curation.dedup_clusters import Labels, Rows, join, repeats
from data_curation.dedup_shingles import band_hashes, hash_texts
from data_curation.dialogue_rows import Dialogue, Drops
from data_curation.dialogues import Near

ROUNDS = 8
"""Comparisons of a band's equal rows, each with the first of those that were like none before: what is common to many
texts ("how do I ...") fills a band with rows that are not alike."""


def unique(near: Near | None, dialogues: Iterable[Dialogue], drops: Drops) -> list[Dialogue]:
    """One of each cluster of equal or nearly equal conversations: the longest, of equals the one of the smallest id."""
    different: dict[str, Dialogue] = {}
    for dialogue in dialogues:
        if dialogue.id in different:
            drops.drop("dedup", "exact repeat", dialogue)
        different.setdefault(dialogue.id, dialogue)
    rows = list(different.values())
    if near is None or not rows:
        return rows
    labels = clusters([row.text for row in rows], near).tolist()
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
    labels = clusters(prompts, near).tolist()
    names, sizes = dict[int, str](), Counter[int]()
    for label, prompt in zip(labels, prompts, strict=True):
        names.setdefault(label, prompt)
        sizes[label] += many[prompt]
    return {prompt: (names[label], sizes[label]) for label, prompt in zip(labels, prompts, strict=True)}


def clusters(texts: Sequence[str], near: Near) -> Labels:
    """The cluster of each text: joined are those whose sets of runs of words are alike enough, through any chain."""
    hashed = hash_texts(texts, near.ngram)
    bands = band_hashes(hashed, bands=near.bands, rows=near.rows, seed=1)
    sets = [np.unique(hashed.shingles[start:end]) for start, end in pairwise(hashed.starts.astype(np.int64).tolist())]
    sizes = np.array([len(one) for one in sets])
    labels = np.arange(len(texts), dtype=np.int32)
    for band in bands.T:
        rows: Rows = np.flatnonzero(band)
        for _ in range(ROUNDS):
            first, again = repeats(rows, band)
            alike = labels[first] == labels[again]
            # Sets of very different sizes can not be alike: that needs no look at what is in them.
            small, large = np.minimum(sizes[first], sizes[again]), np.maximum(sizes[first], sizes[again])
            for place in np.flatnonzero(~alike & (small >= near.similarity * large)):
                alike[place] = similarity(sets[first[place]], sets[again[place]]) >= near.similarity
            labels = join(labels, first[alike], again[alike])
            rows = np.sort(again[~alike])
            if len(rows) < 2:
                break
    return labels


def similarity(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> float:
    """The Jaccard index of two sets, given as sorted arrays."""
    shared = len(np.intersect1d(left, right, assume_unique=True))
    return shared / max(len(left) + len(right) - shared, 1)
