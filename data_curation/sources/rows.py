"""Rows of JSONL, Parquet and Hugging Face datasets as raw records; a row that is wrong costs itself alone."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

from data_curation.records import START, Raw
from data_curation.settings import InputError
from data_curation.sources.streams import Opened
from data_curation.sources.unpacking import blocks

# Halves of surrogate pairs are legal in JSON and in no text; NUL ends strings in many programs.
_HALF = re.compile("[\ud800-\udfff]")


class RowFields(NamedTuple):
    """Names of the fields of a row; `a.b` is field `b` inside field `a`."""

    text: str = "text"
    url: str = "url"
    date: str = "date"
    title: str = "title"
    language: str = "language"
    id: str = "id"


def jsonl(stream: Opened, names: RowFields, max_bytes: int) -> Iterator[Raw]:
    """A record for each line that is not empty."""
    for number, (line, size) in enumerate(lines(blocks(stream, stream.uri), max_bytes), 1):
        if size > max_bytes:
            yield Raw("", line, size=size, note=f"line {number}", drop="record-too-large")
        elif line.strip():
            try:
                row: Any = json.loads(line.decode())
            except (ValueError, RecursionError) as error:
                yield Raw("", line, drop="bad-record", note=f"line {number} is not JSON in UTF-8: {error}")
            else:
                yield of_row(row, line, f"line {number}", names)


def lines(data: Iterator[bytes], limit: int) -> Iterator[tuple[bytes, int]]:
    """Lines without their ends, each with its bytes; of one above the limit only the start comes."""
    line, size = bytearray(), 0
    for block in data:
        *ended, last = block.split(b"\n")
        for part in ended:
            size += len(part)
            yield bytes(_joined(line, part, size, limit)), size
            line, size = bytearray(), 0
        size += len(last)
        line = _joined(line, last, size, limit)
    if size:
        yield bytes(line), size


def _joined(line: bytearray, part: bytes, size: int, limit: int) -> bytearray:
    """The line with its next part, or its start only where it is too large already."""
    return line[:START] + part[: max(0, START - len(line))] if size > limit else line + part


def parquet(stream: Opened, names: RowFields, max_bytes: int) -> Iterator[Raw]:
    """A record for each row; only the named columns are read, a thousand rows at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        # Checked where the writer left checksums: a flipped byte reads as another text otherwise.
        file = pq.ParquetFile(stream, page_checksum_verification=True)
        columns = _columns(file.schema_arrow, names, stream.uri)
        for batch in file.iter_batches(1000, columns=columns):
            for row in plain_rows(batch):
                number += 1
                if row is None:
                    note = f"row {number}: a text in it is not UTF-8"
                    yield Raw("", note.encode(), drop="bad-record", note=note)
                else:
                    yield of_plain(row, f"row {number}", names, max_bytes)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{stream.uri}: not a whole Parquet file: {error}; fetch it again") from None


def _columns(schema: Any, names: RowFields, uri: str) -> list[str]:
    import pyarrow as pa

    text = names.text if names.text in schema.names else names.text.split(".")[0]
    if text not in schema.names:
        raise InputError(f"{uri}: no column {text!r}, it has {', '.join(schema.names)}; name one in text_field")
    kind = schema.field(text).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    if text == names.text and not any(fits(kind) for fits in texts):
        raise InputError(f"{uri}: column {text!r} holds {kind}, not text; name another one in text_field")
    wanted = {name if name in schema.names else name.split(".")[0] for name in names}
    return [name for name in schema.names if name in wanted]


def plain_rows(batch: Any) -> Iterator[dict[str, Any] | None]:
    """The rows of a batch; None for one whose bytes are no text."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for index in range(batch.num_rows):
            try:
                yield batch.slice(index, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield None


def of_plain(row: dict[str, Any], where: str, names: RowFields, max_bytes: int) -> Raw:
    """The record of a row that was no bytes: what it holds in the named fields, as JSON, makes its id."""
    plain = {name: _get(row, name) for name in names}
    record = json.dumps(plain, sort_keys=True, default=str).encode()
    if len(record) > max_bytes:
        return Raw("", record[:START], size=len(record), note=where, drop="record-too-large")
    return of_row(row, record, where, names)


def of_row(row: Any, record: bytes, where: str, names: RowFields) -> Raw:
    """The record of one row, or why it is none."""
    if not isinstance(row, dict):
        return Raw("", record, drop="bad-record", note=f"{where} is no JSON object")
    fields = cast(dict[str, Any], row)
    text = _get(fields, names.text)
    if not isinstance(text, str):
        is_what = "is missing or null" if text is None else f"is {type(text).__name__}, not a string"
        return Raw("", record, drop="bad-record", note=f"{where}: its field {names.text!r} {is_what}")
    url, title, language = (_string(_get(fields, name)) for name in (names.url, names.title, names.language))
    return Raw(url, record, text=_clean(text), date=_string(_get(fields, names.date)), title=title, language=language)


def _get(row: Mapping[str, Any], name: str) -> Any:
    if name in row or "." not in name:
        return row.get(name)
    first, rest = name.split(".", 1)
    inner = row.get(first)
    return _get(cast(dict[str, Any], inner), rest) if isinstance(inner, dict) else None


def _string(value: Any) -> str:
    if value is None or isinstance(value, (dict, list)):
        return ""
    return _clean(value.isoformat() if hasattr(value, "isoformat") else str(value))


def _clean(text: str) -> str:
    text = text.replace("\0", "")
    try:
        text.encode()
    except UnicodeEncodeError:
        return _HALF.sub("\ufffd", text)
    return text
