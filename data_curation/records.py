"""Raw records out of WARC, HTML, JSONL and Parquet files, every byte of a file accounted for."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_curation.settings import InputError
from data_curation.sources.streams import Opened, check_size, opened
from data_curation.sources.unpacking import blocks

if TYPE_CHECKING:
    from data_curation.sources.rows import RowFields

__all__ = ["START", "Raw", "blocks", "check_size", "parse", "read"]

START = 4096
"""Bytes that are kept of a record that is too large: enough to tell it from others."""


@dataclass(slots=True)
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
    language: str = ""
    """What the record declares, as written there."""
    drop: str = ""
    """Reason why there is nothing to extract; empty if there is."""
    note: str = ""
    """Where and what is wrong, of a record that is dropped as `bad-record`."""
    size: int = 0
    """Bytes of the record where only its start was kept; 0 where it is whole."""


def read(uri: str, kind: str, path: str, max_bytes: int, names: "RowFields | None" = None) -> Iterator[Raw]:
    """The records of one file of a source; InputError names the file when it is cut, damaged or not of its kind.

    `path` is the file's URL where the file is one page. Records above `max_bytes` come without their content, with the
    reason `record-too-large`; those that are wrong one by one come with the reason `bad-record`. TransientError where
    a network was in the way.
    """
    with opened(uri) as stream:
        yield from parse(stream, kind, path, max_bytes, names)


def parse(stream: Opened, kind: str, path: str, max_bytes: int, names: "RowFields | None" = None) -> Iterator[Raw]:
    """The records of an open file, as `read` gives them; `stream.taken` says how far it is."""
    from data_curation.sources import rows

    if kind == "parquet":
        yield from rows.parquet(stream, names or rows.RowFields(), max_bytes)
    elif kind == "jsonl":
        yield from rows.jsonl(stream, names or rows.RowFields(), max_bytes)
    elif kind == "html":
        yield _html(stream, path, max_bytes)
    elif kind == "warc":
        from data_curation.warc_reader import records

        yield from records(blocks(stream, stream.uri), stream.uri, max_bytes)
    else:
        raise InputError(f"{stream.uri}: files of kind {kind!r} hold no documents")


def _html(stream: Opened, path: str, max_bytes: int) -> Raw:
    data, size = stream.read(max_bytes + 1), 0
    if len(data) <= max_bytes:
        return Raw(path, data, html=data)
    while block := stream.read(1 << 20):
        size += len(block)
    return Raw(path, data[:START], size=len(data) + size, drop="record-too-large")
