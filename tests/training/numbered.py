"""Shards whose tokens count through all documents, and batches compared, for tests of the loader."""

import random
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from data_curation.files import Writer, writing
from data_curation.shard_index import Index
from data_curation.shard_writer import block_of, histogram, write_index, write_shard
from data_curation.shards import Document
from training.batches import Batch, Batches
from training.mixing import MixConfig

PHASES = [(256, 20), (512, 12), (1024, 8)]
MIXES = [MixConfig(), MixConfig(sources={"web": 1, "code": 3}), MixConfig(long_share=0.4)]
MIXED: dict[str, Any] = {"seed": 3, "tokens_per_step": 4096, "phases": PHASES, "mixes": MIXES}
"""All sources, then two of them, then all with more of the long documents."""

FIELDS = ("tokens", "labels", "positions", "documents")


def shards(folder: Path, sizes: Sequence[int], sources: Sequence[str] = ("web",), number: int = 1) -> Path:
    """Documents of these many tokens in some shards, their sources in turn; tokens count 0, 1, 2, ... through all."""
    index = Index(1 << 27, 0, "", tuple(sorted(sources)), ("en",))
    ends = np.cumsum(sizes)
    documents = [
        Document(f"{at:032x}", sources[at % len(sources)], "en", 1, np.arange(end - size, end, dtype=np.uint32))
        for at, (size, end) in enumerate(zip(sizes, ends, strict=True))
    ]

    def open_file(path: str) -> AbstractContextManager[Writer]:
        return writing(str(folder / path))

    made = [
        write_shard(open_file, f"{at:05d}", index, [block_of(index, documents[at::number])]) for at in range(number)
    ]
    write_index(open_file, index, [(shard, histogram(index, records)) for shard, records in made])
    return folder


def sizes_of(total: int, seed: int = 0, longest: int = 5000) -> list[int]:
    """Lengths as in web text: most of them short, a few very long; together exactly `total` tokens."""
    chance, sizes = random.Random(seed), list[int]()
    while (left := total - sum(sizes)) > 0:
        sizes.append(min(left, longest, max(2, int(chance.lognormvariate(5, 1.2)))))
    return sizes


def stream(batches: Batches) -> list[Batch]:
    """All batches of all phases in order."""
    return [batches.batch(phase, step) for phase, (_, steps) in enumerate(batches.phases) for step in range(steps)]


def equal(one: Batch, other: Batch) -> bool:
    """Whether two batches hold the same numbers."""
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in FIELDS)
