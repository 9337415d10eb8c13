"""Columns of hashes in Parquet files, read one at a time as arrays over many files."""

import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_curation.documents import parquet_file
from data_curation.files import filesystem
from data_curation.place import Piece, PieceWriter, Place
from data_curation.settings import StageError

HALVES = pa.binary(16)
"""128 bits: an id, a hash of a text. Sorted as bytes, they are sorted as (high, low) numbers."""


def write_columns(piece: PieceWriter, part: str, path: str, table: pa.Table, rows: int = 1 << 16) -> None:
    """Write a table as one Parquet file of `rows` rows a group; hashes do not compress, so nothing is tried."""
    with piece.write(part, path) as out:
        options: Any = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
        with pq.ParquetWriter(out, table.schema, **options) as writer:
            writer.write_table(table, row_group_size=rows)
        out.rows = table.num_rows


def read_piece(place: Place, name: str, part: str, path: str) -> pa.Table:
    """One file of a finished piece, its hash checked."""
    whole = place.done(name)
    if whole is None:
        raise StageError(f"{place.name}: the piece {name} is gone; start again")
    one = Piece(name, {part: [file for file in whole.files[part] if file.path == path]})
    return pq.read_table(place.folder(one, part) / path)


def halves(values: list[bytes]) -> pa.Array:
    """Strings of 16 bytes as a column."""
    return pa.FixedSizeBinaryArray.from_buffers(HALVES, len(values), [None, pa.py_buffer(b"".join(values))])


def as_bytes(high_low: NDArray[np.uint64]) -> pa.Array:
    """An array (n, 2) of numbers as a column of 16 bytes each."""
    data = np.ascontiguousarray(high_low.astype(">u8")).tobytes()
    return pa.FixedSizeBinaryArray.from_buffers(HALVES, len(high_low), [None, pa.py_buffer(data)])


def metadata(uri: str) -> dict[str, Any] | None:
    """What `with_metadata` wrote into a file; None where it is another kind of file."""
    with _opened(uri) as file:
        found = (file.schema_arrow.metadata or {}).get(b"dedup")
    return cast(dict[str, Any], json.loads(found)) if found else None


def with_metadata(table: pa.Table, about: dict[str, Any]) -> pa.Table:
    """The table with plain JSON data that its file will carry."""
    return table.replace_schema_metadata({"dedup": json.dumps(about, sort_keys=True)})


@dataclass(frozen=True)
class Columns:
    """The columns of files that have the same ones, as if they were one file: rows are numbered through all of them."""

    uris: tuple[str, ...]
    starts: list[int] = field(default_factory=lambda: [0])
    """Number of each file's first row, and one past the last row of all."""

    @staticmethod
    def of(uris: list[str]) -> "Columns":
        """The columns of these files."""
        found = Columns(tuple(uris))
        for uri in uris:
            with _opened(uri) as file:
                found.starts.append(found.starts[-1] + file.metadata.num_rows)
        return found

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return self.starts[-1]

    def numbers(self, name: str, dtype: Any = np.uint64) -> NDArray[Any]:
        """A column of numbers, shape (rows,)."""
        found = np.empty(self.rows, dtype=dtype)
        for start, array in self._arrays(name):
            found[start : start + len(array)] = array.to_numpy()
        return found

    def pairs(self, name: str) -> NDArray[np.uint64]:
        """A column of 16 bytes, shape (rows, 2): high and low half."""
        found = np.empty((self.rows, 2), dtype=np.uint64)
        for start, array in self._arrays(name):
            raw = np.frombuffer(array.buffers()[1], dtype=">u8")[2 * array.offset : 2 * (array.offset + len(array))]
            found[start : start + len(array)] = raw.reshape(-1, 2)
        return found

    def place_of(self, row: int) -> tuple[int, int]:
        """The file that holds a row, and its number there."""
        file = int(np.searchsorted(self.starts, row, side="right")) - 1
        return file, row - self.starts[file]

    def _arrays(self, name: str) -> Iterator[tuple[int, Any]]:
        for uri, start in zip(self.uris, self.starts[:-1], strict=True):
            with _opened(uri) as file:
                for batch in file.iter_batches(1 << 16, columns=[name]):
                    yield start, batch.column(0)
                    start += batch.num_rows


@contextmanager
def _opened(uri: str) -> Generator[pq.ParquetFile]:
    fs, path = filesystem(uri)
    with fs.open(path, "rb") as stream:
        yield parquet_file(stream)
