"""Packing: best fit where pieces fit, cuts only where nothing does, no token lost."""

import random

import numpy as np
import pytest

from training.packing import Pieces, pack


def packed(sizes: list[int], length: int) -> Pieces:
    """Documents 0, 1, ... of these sizes, packed from their first token on."""
    numbers = np.arange(len(sizes), dtype=np.int64)
    return pack(numbers, np.zeros_like(numbers), np.array(sizes, np.int64), length)


def test_pieces_go_into_the_fullest_row_that_takes_them() -> None:
    """6+4 and 5+3+2 fill two rows of 10: nothing is cut, and pieces of a row stay in the order of the documents."""
    pieces = packed([4, 3, 6, 2, 5], 10)
    rows = [pieces.documents[pieces.rows == row].tolist() for row in range(2)]
    assert rows == [[0, 2], [1, 3, 4]]
    assert not pieces.begins.any()


def test_what_fits_nowhere_fills_the_holes() -> None:
    """Five pieces of 6 in three rows of 10: three stay whole, the other two are cut into the holes of 4."""
    pieces = packed([6] * 5, 10)
    assert np.bincount(pieces.rows, pieces.sizes).tolist() == [10, 10, 10]
    assert sorted(pieces.sizes.tolist()) == [2, 2, 4, 4, 6, 6, 6]


def test_long_documents_are_cut_into_rows() -> None:
    """A document of 25 in rows of 10 gives two full rows and a rest that shares a row."""
    pieces = packed([25, 5], 10)
    assert sorted(zip(pieces.documents.tolist(), pieces.begins.tolist(), pieces.sizes.tolist(), strict=True)) == [
        (0, 0, 10),
        (0, 10, 10),
        (0, 20, 5),
        (1, 0, 5),
    ]


def test_every_token_lies_in_one_row() -> None:
    """For random sizes all rows are full and the pieces of each document join to the whole document."""
    chance = random.Random(0)
    for _ in range(50):
        length = chance.choice([1, 7, 64])
        sizes = [chance.randint(1, 3 * length) for _ in range(chance.randint(1, 80))]
        sizes.append(length - sum(sizes) % length)
        pieces = packed(sizes, length)
        assert np.bincount(pieces.rows, pieces.sizes).tolist() == [length] * (sum(sizes) // length)
        for document, size in enumerate(sizes):
            mine = np.flatnonzero(pieces.documents == document)
            mine = mine[np.argsort(pieces.begins[mine])]
            assert pieces.begins[mine].tolist() == (np.cumsum(pieces.sizes[mine]) - pieces.sizes[mine]).tolist()
            assert pieces.sizes[mine].sum() == size


def test_a_rest_that_fills_no_row_is_refused() -> None:
    """The caller hands in whole rows: anything else would be lost or padded."""
    with pytest.raises(ValueError, match="11 tokens do not fill whole rows of 10"):
        packed([11], 10)
