"""Hashes by which equal and nearly equal texts meet: xxh3-128 of the text, MinHash bands of its shingles."""

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pyarrow as pa
import rensa
import xxhash

from data_curation.dedup import DedupConfig
from data_curation.documents import read_rows, write_table
from data_curation.grams import normal, shingles, words
from data_curation.place import PieceWriter

SIGNATURES = pa.schema(
    [
        ("id", pa.string()),
        ("url", pa.string()),
        ("bytes", pa.int64()),  # UTF-8 bytes of the text
        ("exact", pa.binary(16)),  # xxh3-128 of the normalised text
        ("bands", pa.list_(pa.uint64())),  # xxh3-64 of each band; empty for a text without words
    ]
)


def sign(config: DedupConfig, uri: str, rank: int, piece: PieceWriter) -> None:
    """Write the signatures of one file of documents, row by row as they stand there."""
    write_table(piece, "work/signatures", f"{rank:05d}.parquet", _rows(config, uri), SIGNATURES)


def bands(config: DedupConfig, text: str) -> list[int]:
    """One number per band; two texts are near-duplicates where any band's numbers are equal."""
    parts = sorted(set(shingles(words(text), config.ngram)))
    if not parts:
        return []
    signature = cast(Any, rensa).RMinHash(num_perm=config.bands * config.rows, seed=config.seed)
    signature.update(parts)
    rows = np.asarray(signature.digest(), dtype="<u4").reshape(config.bands, config.rows)
    return [xxhash.xxh3_64_intdigest(row.tobytes()) for row in rows]


def exact(text: str) -> bytes:
    """16 bytes, equal for texts that differ in case or space at most."""
    return xxhash.xxh3_128_digest(normal(text).encode())


def _rows(config: DedupConfig, uri: str) -> Iterator[dict[str, Any]]:
    for row in read_rows(uri, ["id", "url", "text"]):
        text = row["text"]
        size = len(text.encode())
        yield {"id": row["id"], "url": row["url"], "bytes": size, "exact": exact(text), "bands": bands(config, text)}
