"""Raw records out of WARC, HTML, JSONL and Parquet files, every byte of a file accounted for."""

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from data_curation.files import filesystem
from data_curation.settings import InputError

BLOCK = 1 << 20
PACKED = 1 << 16  # a member is about this long; what follows it in a block is copied once per member


@dataclass(frozen=True)
class Raw:
    """One record as it came: the bytes that make its id, and either HTML or ready text."""

    url: str
    record: bytes
    """The raw record; an id is taken from it."""
    html: bytes | None = None
    text: str | None = None
    charset: str | None = None
    date: str = ""
    title: str = ""
    drop: str = ""
    """Reason why there is nothing to extract; empty if there is."""


def read(uri: str, kind: str, path: str, max_bytes: int) -> Iterator[Raw]:
    """The records of one file of a source; InputError names the file when it is cut, damaged or not of its kind.

    Records above `max_bytes` come without their content, with the reason `record-too-large`.
    """
    fs, place = filesystem(uri)
    with cast(BinaryIO, fs.open(place, "rb")) as stream:
        if kind == "parquet":
            yield from _parquet(stream, uri)
        elif kind == "html":
            yield from _html(stream, path, max_bytes)
        elif kind == "jsonl":
            yield from _jsonl(stream, uri, max_bytes)
        else:
            from data_curation.warc_reader import records

            yield from records(blocks(stream, uri), uri, max_bytes)


def check(uri: str, kind: str, path: str, size: int, max_bytes: int) -> None:
    """Read a whole file without using it; InputError says what is wrong with it."""
    check_size(uri, size)
    for _ in read(uri, kind, path, max_bytes):
        pass


def check_size(uri: str, size: int) -> None:
    """A file cut at a record's end looks whole: only its listed size tells."""
    fs, place = filesystem(uri)
    if not fs.exists(place):
        raise InputError(f"{uri}: was listed and is gone; bring it back or run again")
    now = fs.size(place)
    if now != size:
        raise InputError(f"{uri}: {now} bytes, {size} when it was listed: it was cut or replaced; run again")


def blocks(stream: BinaryIO, uri: str) -> Iterator[bytes]:
    """A file's bytes, gzip undone member by member, at most about a megabyte at a time however well they packed."""
    if not uri.endswith(".gz"):
        while block := stream.read(BLOCK):
            yield block
        return
    unpacker, packed, read = zlib.decompressobj(31), b"", 0
    fresh = True  # no byte of the present member has been seen
    while packed or (packed := stream.read(PACKED)):
        start = len(packed)
        try:
            block = unpacker.decompress(packed, BLOCK)
        except zlib.error as error:
            raise InputError(f"{uri}: not gzip, or damaged, near byte {read}: {error}; fetch it again") from None
        packed = unpacker.unconsumed_tail
        fresh = False
        if unpacker.eof:
            packed, unpacker, fresh = unpacker.unused_data, zlib.decompressobj(31), True
        read += start - len(packed)
        if block:
            yield block
    while not fresh:  # what the last member still holds back
        block = unpacker.decompress(b"", BLOCK)
        if block:
            yield block
            continue
        raise InputError(f"{uri}: cut off: its last gzip member has no end (byte {read}); fetch it again")


def _html(stream: BinaryIO, path: str, max_bytes: int) -> Iterator[Raw]:
    data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        yield Raw(path, b"", drop="record-too-large")
    else:
        yield Raw(path, data, html=data)


def _jsonl(stream: BinaryIO, uri: str, max_bytes: int) -> Iterator[Raw]:
    for number, line in enumerate(_lines(blocks(stream, uri), max_bytes), 1):
        if line is None:
            yield Raw(f"{uri}#{number}", b"", drop="record-too-large")
        elif line.strip():
            try:
                row = json.loads(line.decode())
            except ValueError as error:
                raise InputError(f"{uri}: line {number} is not JSON in UTF-8: {error}; correct or remove it") from None
            yield _row(row, line, f"{uri}: line {number}")


def _lines(data: Iterator[bytes], limit: int) -> Iterator[bytes | None]:
    """Lines without their end; None for one above the limit."""
    rest, skipping = bytearray(), False
    for block in data:
        *ended, last = block.split(b"\n")
        for part in ended:
            rest += part
            yield None if skipping or len(rest) > limit else bytes(rest)
            rest, skipping = bytearray(), False
        rest += last
        if len(rest) > limit:
            rest, skipping = bytearray(), True
    if rest or skipping:
        yield None if skipping else bytes(rest)


def _parquet(stream: BinaryIO, uri: str) -> Iterator[Raw]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(stream).iter_batches(1000):
            for row in batch.to_pylist():
                plain = {name: row.get(name) for name in ("text", "url", "date", "title")}
                yield _row(plain, json.dumps(plain, sort_keys=True, default=str).encode(), uri)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{uri}: not a whole Parquet file: {error}; fetch it again") from None


def _row(row: Any, record: bytes, where: str) -> Raw:
    if not isinstance(row, dict) or not isinstance(cast(dict[str, Any], row).get("text"), str):
        raise InputError(f"{where}: no string `text` in it; each record needs one")
    fields = cast(dict[str, Any], row)
    # A lone surrogate is legal JSON and no legal UTF-8.
    text = fields["text"].encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    url, date, title = (str(fields.get(name) or "") for name in ("url", "date", "title"))
    return Raw(url, record, text=text, date=date, title=title)
