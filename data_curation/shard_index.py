"""What index.json says of a folder of shards: its sources, shards and lengths of documents."""

import json
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_curation.files import join, read_bytes
from data_curation.settings import InputError

FORMAT = 1
BLOCK_BYTES = 1 << 16  # small, since a random document pays for whole blocks at their first use
BUCKETS = 24  # of the length histogram: bucket b holds documents of 2^b .. 2^(b+1) - 1 tokens, the last one all longer


@dataclass(frozen=True)
class Shard:
    """What the index says of one shard; `sha256` is that of its files: {"tokens", "documents", "checksums"}."""

    name: str
    tokens: int
    documents: int
    sha256: dict[str, str]


@dataclass(frozen=True)
class Index:
    """What the whole folder holds."""

    vocabulary: int
    """Token ids lie below this."""
    separator: int
    """The token that closes every document."""
    tokenizer: str
    """Hex sha256 of the tokenizer.json that made the tokens."""
    sources: tuple[str, ...]
    languages: tuple[str, ...]
    shards: tuple[Shard, ...] = ()
    lengths: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    """Histogram by source: {"documents": [...], "tokens": [...]} by power of two of the length in tokens."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Two bytes a token where the vocabulary allows."""
        return np.dtype("<u2" if self.vocabulary <= 1 << 16 else "<u4")

    @property
    def tokens(self) -> int:
        """Tokens of all shards."""
        return sum(shard.tokens for shard in self.shards)

    @property
    def documents(self) -> int:
        """Documents of all shards."""
        return sum(shard.documents for shard in self.shards)

    def to_json(self) -> dict[str, Any]:
        """As it lies in index.json."""
        return {
            "format": FORMAT,
            "dtype": "uint16" if self.dtype.itemsize == 2 else "uint32",
            "block_bytes": BLOCK_BYTES,
            "tokens": self.tokens,
            "documents": self.documents,
            **asdict(self),
        }


def length_class(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bucket of each length in tokens: its power of two, exactly."""
    return np.minimum(np.frexp(lengths.astype(np.float64))[1] - 1, BUCKETS - 1).astype(np.int64)


def read_index(folder: str) -> tuple[Index, str]:
    """The index of a folder or URI, and its hex sha256, which stands for every byte of the folder."""
    path = join(folder, "index.json")
    try:
        raw = read_bytes(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: missing; this is no folder of shards") from error
    try:
        data = json.loads(raw)
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}); make the shards again") from error
    if data.get("format") != FORMAT:
        raise InputError(f"{path}: format {data.get('format')!r}, this release reads {FORMAT}; make the shards again")
    index = Index(
        vocabulary=data["vocabulary"],
        separator=data["separator"],
        tokenizer=data["tokenizer"],
        sources=tuple(data["sources"]),
        languages=tuple(data["languages"]),
        shards=tuple(Shard(**shard) for shard in data["shards"]),
        lengths=data["lengths"],
    )
    return index, sha256(raw).hexdigest()
