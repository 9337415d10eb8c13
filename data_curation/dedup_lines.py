"""Lines that many documents share: counted per file, summed in ranges of their hashes, cut out of all but one."""

import re
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from data_curation.dedup import DedupConfig
from data_curation.dedup_columns import read_piece, write_columns
from data_curation.dedup_verdicts import STAYS
from data_curation.documents import read_rows
from data_curation.grams import fold, folded_words
from data_curation.place import Piece, PieceWriter

AT_ONCE = 2_000_000
"""Distinct lines of all files summed at a time, about 200 MB."""
_BLANK = re.compile(r"\n\s*\n")


class Cut(NamedTuple):
    """A text without its repeated lines, and the bytes that went."""

    text: str
    bytes: int


def count_lines(config: DedupConfig, uri: str, rank: int, piece: PieceWriter) -> None:
    """Write the distinct lines of the documents that stay: hash, number of documents, smallest id (high, low)."""
    hashes, owners = list[int](), list[tuple[int, int]]()
    codes = read_piece(piece.place, "clusters", "work/verdicts", f"{rank:05d}.parquet")["code"].to_pylist()
    for row, code in zip(read_rows(uri, ["id", "text"]), codes, strict=True):
        if code == STAYS:
            some = set(line_hashes(row["text"], config.line_words)) - {0}
            hashes += some
            owners += [(int(row["id"][:16], 16), int(row["id"][16:], 16))] * len(some)
    ids = np.asarray(owners, dtype=np.uint64).reshape(-1, 2)
    found = _summed(np.asarray(hashes, dtype=np.uint64), np.ones(len(hashes), dtype=np.int64), ids)
    write_columns(piece, "work/lines", f"{rank:05d}.parquet", pa.table(found))


def line_hashes(text: str, least: int) -> list[int]:
    """xxh3-64 of each line in its normal form; 0 for one of fewer than `least` words (or chunks between spaces)."""
    found: list[int] = []
    for line in fold(text).split("\n"):
        chunks = line.split()
        # Only scripts that are written without spaces have more words than chunks between spaces, as a rule.
        long = len(chunks) >= least or (not line.isascii() and len(folded_words(line)) >= least)
        found.append(xxhash.xxh3_64_intdigest(" ".join(chunks)) if long else 0)
    return found


def merge_lines(config: DedupConfig, counted: list[Piece], piece: PieceWriter) -> None:
    """Write the lines of more than `repeated_lines` documents: hash and the id that keeps it, by rising hash."""
    uris = [
        str(piece.place.folder(one, "work/lines") / file.path) for one in counted for file in one.files["work/lines"]
    ]
    rows = sum(pq.read_metadata(uri).num_rows for uri in uris)
    ranges = 1 + rows // AT_ONCE
    bounds = [index * 2**64 // ranges for index in range(ranges + 1)]
    tables = [_frequent(config, uris, low, high) for low, high in pairwise(bounds)]
    write_columns(piece, "work/repeated", "lines.parquet", pa.concat_tables(tables))


def cut_lines(text: str, id: str, uri: str, least: int) -> Cut:
    """The text without the lines that stand in `uri`, but for those that this document keeps."""
    hashes, owners = _table(uri)
    lines = text.split("\n")
    found = np.asarray(line_hashes(text, least), dtype=np.uint64)
    places = np.minimum(np.searchsorted(hashes, found), max(len(hashes) - 1, 0))
    if not len(hashes) or not (gone := (hashes[places] == found) & ~_mine(owners[places], id)).any():
        return Cut(text, 0)
    left = "\n".join(line for line, cut in zip(lines, gone, strict=True) if not cut)
    left = _BLANK.sub("\n\n", left).strip()
    return Cut(left, len(text.encode()) - len(left.encode()))


@cache
def _table(uri: str) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    table = pq.read_table(uri)
    return table["hash"].to_numpy(), np.stack([table["high"].to_numpy(), table["low"].to_numpy()], axis=1)


def _mine(owners: NDArray[np.uint64], id: str) -> NDArray[np.bool_]:
    return (owners[:, 0] == np.uint64(int(id[:16], 16))) & (owners[:, 1] == np.uint64(int(id[16:], 16)))


def _frequent(config: DedupConfig, uris: list[str], low: int, high: int) -> pa.Table:
    """The repeated lines whose hashes are `low` or more and below `high`."""
    within: Any = pc.field("hash") >= pa.scalar(low, pa.uint64())
    within &= pc.field("hash") <= pa.scalar(high - 1, pa.uint64())
    table = pa.concat_tables([pq.read_table(uri, filters=within) for uri in uris])
    ids = np.stack([table["high"].to_numpy(), table["low"].to_numpy()], axis=1)
    found = _summed(table["hash"].to_numpy(), table["documents"].to_numpy(), ids)
    often = found["documents"] > config.repeated_lines
    return pa.table({name: column[often] for name, column in found.items()})


def _summed(
    hashes: NDArray[np.uint64], documents: NDArray[np.int64], ids: NDArray[np.uint64]
) -> dict[str, NDArray[Any]]:
    """One row per hash, by rising hash: the sum of documents and the smallest id."""
    order = np.lexsort((ids[:, 1], ids[:, 0], hashes))
    ordered = hashes[order]
    leads = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(order) else order
    sums = np.add.reduceat(documents[order], leads) if len(order) else documents
    first = order[leads]
    return {"hash": hashes[first], "documents": sums, "high": ids[first, 0], "low": ids[first, 1]}
