"""WARC records with exact framing: a cut file or a wrong Content-Length is an error, not the end of the data."""

import re
from collections.abc import Iterator
from functools import lru_cache
from io import BytesIO

from data_curation.records import Raw
from data_curation.settings import InputError

MAX_HEADER = 64 << 10
HTML_TYPES = (b"text/html", b"application/xhtml+xml")
# Records that are about other records, and never a page.
_ABOUT = (b"warcinfo", b"request", b"metadata", b"continuation")
# A line that starts with a space continues the one before it.
_FIELD = re.compile(rb"\r\n([^:\r\n]+):[ \t]*([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)")
_OK = re.compile(rb"HTTP/\d(?:\.\d)? +(\d{3})\b")
_CHARSET = re.compile(rb";\s*charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)


def records(data: Iterator[bytes], uri: str, max_bytes: int) -> Iterator[Raw]:
    """The pages among the records of a WARC stream, and the texts of a WET stream; `uri` is for errors.

    Framing is checked here, byte by byte, because fastwarc ends a damaged file in silence. fastwarc undoes chunks and
    compression inside of records.
    """
    stream = _Stream(data, uri)
    found = 0
    while (end := stream.header()) >= 0:
        start = stream.start
        head = _fields(stream.buffer[start:end])
        length = _length(head, uri, stream.at + start)
        if length <= max_bytes:
            record = stream.take(end + length - start)
        else:
            record = stream.take(end - start)
            stream.skip(length)
        if stream.take(4) != b"\r\n\r\n":
            raise InputError(
                f"{uri}: the record that ends at byte {stream.at + stream.start} has Content-Length {length}, which is "
                "not its length; fetch the file again"
            )
        found += 1
        if (kind := head.get(b"warc-type", b"").lower()) not in _ABOUT:
            yield _page(kind, head, record, end - start, length, max_bytes)
    if not found:
        raise InputError(f"{uri}: no WARC record in it; remove it or fetch it again")


def _page(kind: bytes, head: dict[bytes, bytes], record: bytes, body: int, length: int, most: int) -> Raw:
    """One record; its block of `length` bytes starts at byte `body` of it."""
    url = head.get(b"warc-target-uri", b"").decode("utf-8", "replace").strip("<>")
    date = head.get(b"warc-date", b"").decode("ascii", "replace")
    if length > most:
        # Its header, which is all that was kept, tells it from others.
        return Raw(url, record, date=date, size=body + length, drop="record-too-large")
    if kind == b"conversion":
        return _converted(url, date, head, record, body)
    if kind not in (b"response", b"resource"):
        return Raw(url, record, date=date, drop=f"record-{kind.decode('ascii', 'replace') or 'without-type'}")
    content_type, charset, html = head.get(b"content-type", b""), None, None
    if kind == b"response":
        end = record.find(b"\r\n\r\n", body, body + MAX_HEADER)
        status = _OK.match(record, body)
        if end < 0 or not status:
            return Raw(url, record, date=date, drop="no-http")
        if status[1] != b"200":
            return Raw(url, record, date=date, drop=f"http-{status[1].decode()}")
        http = _fields(record[body:end])
        content_type, charset = _content_type(http.get(b"content-type", b""))
        if http.get(b"transfer-encoding") or http.get(b"content-encoding"):
            html = _decoded(record, most)
            if html is None:
                return Raw(url, record, date=date, drop="record-unreadable")
        else:
            html = record[end + 4 :]
    given, _ = _content_type(head.get(b"warc-identified-payload-type") or content_type)
    if given not in HTML_TYPES:
        return Raw(url, record, date=date, drop="not-html")
    if html is None:
        html = record[body:]
    if len(html) > most:
        return Raw(url, record, date=date, drop="record-too-large")
    return Raw(url, record, html=html, charset=charset, date=date)


def _converted(url: str, date: str, head: dict[bytes, bytes], record: bytes, body: int) -> Raw:
    """A record of a WET file: text that somebody else took out of a page."""
    if _content_type(head.get(b"content-type", b""))[0] != b"text/plain":
        return Raw(url, record, date=date, drop="record-conversion")
    try:
        text = record[body:].decode()
    except UnicodeDecodeError as error:
        return Raw(url, record, date=date, drop="bad-record", note=f"no UTF-8: {error.reason} at byte {error.start}")
    languages = head.get(b"warc-identified-content-language", b"").decode("ascii", "replace")
    return Raw(url, record, text=text, date=date, language=languages.split(",")[0].strip())


def _decoded(record: bytes, most: int) -> bytes | None:
    """The body of a page without chunks and compression; one byte more than allowed tells that there is more."""
    from fastwarc.warc import ArchiveIterator

    try:
        parsed = next(iter(ArchiveIterator(BytesIO(record + b"\r\n\r\n"), parse_http=True, auto_decode="all")), None)
        return parsed.reader.read(most + 1) if parsed is not None else None
    except OSError:
        return None


def _fields(head: bytes) -> dict[bytes, bytes]:
    """Header fields by their names in lower case."""
    return {name.lower(): value.strip() for name, value in _FIELD.findall(head)}


@lru_cache(1024)
def _content_type(value: bytes) -> tuple[bytes, str | None]:
    """Type in lower case and charset of a Content-Type; servers send few different ones."""
    charset = _CHARSET.search(value)
    return value.split(b";")[0].strip().lower(), charset[1].decode("ascii", "replace") if charset else None


def _length(head: dict[bytes, bytes], uri: str, at: int) -> int:
    value = head.get(b"content-length", b"")
    if not value.isdigit():
        given = value.decode("latin-1")
        raise InputError(f"{uri}: the record at byte {at} has Content-Length {given!r}; fetch the file again")
    return int(value)


class _Stream:
    """Bytes taken in exact numbers from blocks; `buffer` starts at byte `at`, the next one is its `start`."""

    def __init__(self, data: Iterator[bytes], uri: str) -> None:
        self.data, self.uri, self.at = data, uri, 0
        self.buffer = b""
        self.start = 0

    def header(self) -> int:
        """Where in `buffer` the next record's header ends, its blank line included; -1 at the end of the data."""
        while (end := self.buffer.find(b"\r\n\r\n", self.start)) < 0:
            if len(self.buffer) - self.start > MAX_HEADER:
                raise InputError(f"{self.uri}: no WARC header ends near byte {self.at}; fetch the file again")
            if not self._more(1):
                if self.start == len(self.buffer):
                    return -1
                raise InputError(f"{self.uri}: cut off in a record's header at byte {self.at}; fetch the file again")
        if not self.buffer.startswith(b"WARC/", self.start):
            where = self.at + self.start
            raise InputError(f"{self.uri}: no WARC record starts at byte {where}; fetch the file again")
        return end + 4

    def take(self, length: int) -> bytes:
        """Exactly `length` bytes."""
        end = self.start + length
        if end > len(self.buffer):
            missing = end - len(self.buffer)
            if not self._more(missing):
                raise InputError(f"{self.uri}: cut off in its last record; fetch it again")
            end = self.start + length
        part = self.buffer[self.start : end]
        self.start = end
        return part

    def skip(self, length: int) -> None:
        """Pass over `length` bytes without keeping them."""
        while length:
            step = min(length, 1 << 20)
            self.take(step)
            length -= step

    def _more(self, least: int) -> bool:
        """Put `least` more bytes behind what is left in the buffer; False where the data end before."""
        parts = [self.buffer[self.start :]]
        self.at, self.start = self.at + self.start, 0
        while least > 0 and (block := next(self.data, b"")):
            parts.append(block)
            least -= len(block)
        self.buffer = b"".join(parts)
        return least <= 0
