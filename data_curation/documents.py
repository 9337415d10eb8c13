"""The two tables of curation: documents, and the decisions that kept or dropped each of them."""

import io
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_curation.files import filesystem
from data_curation.place import PieceWriter

DOCUMENTS = pa.schema(
    [
        ("id", pa.string()),  # xxh3-128 of source name, URL and raw record bytes, 32 hex digits
        ("text", pa.string()),
        ("url", pa.string()),
        ("date", pa.string()),  # ISO 8601 or empty
        ("title", pa.string()),
        ("source", pa.string()),
        ("declared_language", pa.string()),  # what the page says of itself, as written there, or empty
        ("language", pa.string()),  # ISO 639-1, empty until `clean` has looked
        ("language_score", pa.float32()),
        ("quality", pa.float32()),  # model-based score of `clean`, null where none was asked for
    ]
)
DECISIONS = pa.schema(
    [
        ("id", pa.string()),
        ("url", pa.string()),
        ("source", pa.string()),
        ("language", pa.string()),
        ("step", pa.string()),
        ("reason", pa.string()),  # empty: kept
        ("bytes", pa.int64()),  # UTF-8 bytes of the text that came in (of the raw record where there is no text yet)
        ("words", pa.int64()),  # runs of characters between spaces
        ("bytes_left", pa.int64()),  # of what goes out, 0 where the document is dropped
        ("words_left", pa.int64()),
        ("passage", pa.string()),  # the text that caused a drop, where one did
        ("scores", pa.string()),  # JSON, what the rules measured
    ]
)


def write_table(piece: PieceWriter, part: str, path: str, rows: Iterable[dict[str, Any]], schema: pa.Schema) -> int:
    """Write rows as one Parquet file (zstd, 1,000 rows a group) into a part of a piece; returns the number of rows.

    The bytes follow from the rows alone, so equal rows give an equal digest.
    """
    count = 0
    with piece.write(part, path) as out, parquet_writer(out, schema) as writer:
        batch: list[dict[str, Any]] = []
        for row in rows:
            batch.append(row)
            if len(batch) == 1000:
                writer.write_table(pa.Table.from_pylist(batch, schema))
                count, batch = count + len(batch), []
        if batch or count == 0:
            writer.write_table(pa.Table.from_pylist(batch, schema))
        out.rows = count + len(batch)
    return count + len(batch)


def read_rows(uri: str, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of one Parquet file as dictionaries, a row group in memory at a time."""
    fs, path = filesystem(uri)
    with fs.open(path, "rb") as stream:
        for batch in parquet_file(stream).iter_batches(1000, columns=columns):
            yield from batch.to_pylist()


def read_table(uri: str, columns: list[str] | None = None) -> pa.Table:
    """One Parquet file as a table in memory."""
    fs, path = filesystem(uri)
    return parquet_file(io.BytesIO(fs.cat_file(path))).read(columns=columns)


def parquet_writer(out: Any, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer whose pages carry checksums: zstd alone reads a flipped bit as other text."""
    return pq.ParquetWriter(out, schema, compression="zstd", write_page_checksum=True)


def parquet_file(stream: Any) -> pq.ParquetFile:
    """An open Parquet file that is an error where a page is not what was written."""
    return pq.ParquetFile(stream, page_checksum_verification=True)
