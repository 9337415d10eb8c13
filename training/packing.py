"""Best-fit packing of document pieces into a given number of rows, all of them full."""

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Pieces:
    """Stretches of documents: `sizes` tokens, from token `begins` of document `documents`, to lie in row `rows`."""

    documents: Numbers
    begins: Numbers
    sizes: Numbers
    rows: Numbers


def pack(documents: Numbers, begins: Numbers, sizes: Numbers, length: int) -> Pieces:
    """Pack stretches of documents into rows of `length` tokens; sum(sizes) must be a multiple of `length`.

    Documents longer than a row are cut into rows. The rest is placed by best-fit decreasing, each piece into the
    fullest row that takes it. What fits nowhere is cut to fill the holes, so there is no padding and no token is left
    over. Pieces of a row stand in the order in which they came.
    """
    rows = int(sizes.sum()) // length
    if rows * length != sizes.sum():
        raise ValueError(f"{sizes.sum()} tokens do not fill whole rows of {length}")
    number = -(-sizes // length)
    origin = np.repeat(np.arange(len(sizes)), number)
    skipped = (np.arange(len(origin)) - np.repeat(np.cumsum(number) - number, number)) * length
    cut = np.minimum(sizes[origin] - skipped, length)
    index, offset, size, row = _best_fit(cut, length, rows)
    pieces = Pieces(documents[origin[index]], begins[origin[index]] + skipped[index] + offset, size, row)
    order = np.lexsort((offset, index, row))
    return Pieces(pieces.documents[order], pieces.begins[order], size[order], row[order])


def _best_fit(sizes: Numbers, length: int, rows: int) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Index, offset, size and row of each piece; a piece that was cut comes several times."""
    full = np.flatnonzero(sizes == length)
    placed = [(int(piece), 0, length, row) for row, piece in enumerate(full)]
    # One number for space and row, so that a sorted list of numbers finds the fullest row that takes a piece.
    holes = [length * rows + row for row in range(len(full), rows)]
    left: list[tuple[int, int]] = []
    rest = np.flatnonzero(sizes < length)
    for piece in rest[np.argsort(-sizes[rest], kind="stable")].tolist():
        size = int(sizes[piece])
        at = bisect_left(holes, size * rows)
        if at == len(holes):
            left.append((piece, size))
            continue
        _fill(holes, at, size, rows, piece, 0, placed)
    for piece, size in left:
        offset = 0
        while offset < size:
            at = min(bisect_left(holes, (size - offset) * rows), len(holes) - 1)
            offset += _fill(holes, at, size - offset, rows, piece, offset, placed)
    table = np.array(placed, np.int64).reshape(-1, 4)
    return table[:, 0], table[:, 1], table[:, 2], table[:, 3]


def _fill(
    holes: list[int], at: int, size: int, rows: int, piece: int, offset: int, placed: list[tuple[int, int, int, int]]
) -> int:
    """Put as much of a piece as fits into hole `at`; returns how much that is."""
    space, row = divmod(holes.pop(at), rows)
    taken = min(space, size)
    placed.append((piece, offset, taken, row))
    if space > taken:
        insort(holes, (space - taken) * rows + row)
    return taken
