"""Clusters of documents that share a hash, the survivor of each, and the files that hold the survivors."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_curation.decisions import Decisions, Subject
from data_curation.dedup_signatures import SIGNATURES
from data_curation.documents import DOCUMENTS, read_rows, write_table
from data_curation.place import Piece, PieceWriter, Place
from data_curation.settings import StageError

VERDICTS = pa.schema([("kept", pa.string()), ("equal", pa.bool_())])
"""One row per document: the id that is kept instead of it (null: it stays), and whether the texts are equal."""


def judge(signed: list[Piece], place: Place, piece: PieceWriter) -> None:
    """Cluster all signatures and write one file of verdicts per file of documents."""
    tables = [_table(place, one, "work/signatures", SIGNATURES.names) for one in signed]
    table = pa.concat_tables(tables)
    ids = cast(list[str], table["id"].to_pylist())
    exact = cast(list[bytes], table["exact"].to_pylist())
    labels = _components(_edges(exact, cast(list[list[int]], table["bands"].to_pylist())), len(ids))
    survivor = _survivors(labels, ids, np.asarray(table["bytes"]))
    start = 0
    for index, part in enumerate(tables):
        rows = _verdicts(range(start, start + part.num_rows), survivor, ids, exact)
        write_table(piece, "work/verdicts", f"{index:05d}.parquet", rows, VERDICTS)
        start += part.num_rows
    _note(piece, labels, cast(list[str], table["url"].to_pylist()))


def keep(uri: str, rank: int, piece: PieceWriter) -> None:
    """Write the survivors of one file of documents, their signatures for the index, and all decisions."""
    name, decisions = f"{rank:05d}.parquet", Decisions("dedup")
    verdict = _table(
        piece.place, _only(piece.place, "clusters", "work/verdicts", name), "work/verdicts", VERDICTS.names
    )
    kept = cast(list[str | None], verdict["kept"].to_pylist())
    equal = cast(list[bool], verdict["equal"].to_pylist())

    def survivors() -> Iterator[dict[str, Any]]:
        for row, other, same in zip(read_rows(uri), kept, equal, strict=True):
            if other is None:
                decisions.keep(Subject.of(row))
                yield row
            else:
                step, reason = ("exact", "equal-text") if same else ("minhash", "near-duplicate")
                decisions.drop(Subject.of(row), step, reason, kept=other)

    write_table(piece, "documents", name, survivors(), DOCUMENTS)
    decisions.write(piece, name)
    signed = _only(piece.place, f"signatures-{rank:05d}", "work/signatures", name)
    signatures = _table(piece.place, signed, "work/signatures", SIGNATURES.names).to_pylist()
    rows = (row for row, other in zip(signatures, kept, strict=True) if other is None)
    write_table(piece, "index", name, rows, SIGNATURES)


def _only(place: Place, name: str, part: str, path: str) -> Piece:
    """A finished piece, seen through one of its files."""
    whole = place.done(name)
    if whole is None:
        raise StageError(f"{place.name}: the piece {name} is gone; start again")
    return Piece(name, {part: [file for file in whole.files[part] if file.path == path]})


def _table(place: Place, piece: Piece, part: str, columns: list[str]) -> pa.Table:
    folder = place.folder(piece, part)
    return pa.concat_tables([pq.read_table(folder / file.path, columns=columns) for file in piece.files[part]])


def _edges(exact: list[bytes], bands: list[list[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of documents that share a hash; of many that share one, each with its neighbour is enough."""
    some = np.asarray([index for index, row in enumerate(bands) if row], dtype=np.int64)
    matrix = np.asarray([row for row in bands if row], dtype=np.uint64)
    pairs = [_equal_neighbours(np.frombuffer(b"".join(exact), dtype="S16"), np.arange(len(exact), dtype=np.int64))]
    pairs += [_equal_neighbours(column, some) for column in matrix.T]
    return np.concatenate([left for left, _ in pairs]), np.concatenate([right for _, right in pairs])


def _equal_neighbours(values: NDArray[Any], rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    order = np.argsort(values, kind="stable")
    same = np.flatnonzero(values[order][1:] == values[order][:-1])
    return rows[order[same]], rows[order[same + 1]]


def _components(edges: tuple[NDArray[np.int64], NDArray[np.int64]], size: int) -> NDArray[np.int64]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(edges[0]), dtype=np.int8), edges), shape=(size, size))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def _survivors(labels: NDArray[np.int64], ids: list[str], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """For every document the row of its cluster's survivor: the longest, of equals the smallest id."""
    order = np.lexsort((np.asarray(ids), -sizes, labels))
    first = np.ones(len(order), dtype=bool)
    first[1:] = labels[order][1:] != labels[order][:-1]
    best = np.empty(int(labels.max(initial=-1)) + 1, dtype=np.int64)
    best[labels[order[first]]] = order[first]
    return best[labels]


def _verdicts(rows: range, survivor: NDArray[np.int64], ids: list[str], exact: list[bytes]) -> Iterator[dict[str, Any]]:
    for row in rows:
        best = int(survivor[row])
        yield {"kept": None if best == row else ids[best], "equal": exact[row] == exact[best]}


def _note(piece: PieceWriter, labels: NDArray[np.int64], urls: list[str]) -> None:
    """Sizes of the clusters of two or more, and the first URLs of the largest."""
    counts = np.bincount(labels) if len(labels) else np.zeros(0, dtype=np.int64)
    sizes = Counter(int(count) for count in counts if count > 1)
    piece.piece.note["sizes"] = {str(size): number for size, number in sorted(sizes.items())}
    largest = [urls[row] for row in np.flatnonzero(labels == counts.argmax())] if sizes else []
    piece.piece.note["largest"] = sorted(largest)[:8]
