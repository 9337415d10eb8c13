"""WARC records with exact framing: a cut file or a wrong Content-Length is an error, not the end of the data."""

from collections.abc import Iterator
from io import BytesIO

from data_curation.records import Raw
from data_curation.settings import InputError

MAX_HEADER = 64 << 10
HTML_TYPES = ("text/html", "application/xhtml+xml")
# Records that are about other records, and never a page.
_ABOUT = (b"warcinfo", b"request", b"metadata", b"conversion", b"continuation")


def records(data: Iterator[bytes], uri: str, max_bytes: int) -> Iterator[Raw]:
    """The pages among the records of a WARC stream; `uri` is for errors.

    Framing is checked here, byte by byte, because fastwarc ends a damaged file in silence; it parses what is framed.
    """
    stream = _Stream(data, uri)
    found = 0
    while (head := stream.header()) is not None:
        length, kind, start = _length(head, uri, stream.at), _field(head, b"warc-type"), stream.at
        body = None if length > max_bytes else stream.take(length)
        if body is None:
            stream.skip(length)
        if stream.take(4) != b"\r\n\r\n":
            raise InputError(
                f"{uri}: the record at byte {start - len(head)} has Content-Length {length}, which is not its length; "
                "fetch the file again"
            )
        found += 1
        if kind not in _ABOUT:
            yield _page(head, body, max_bytes)
    if not found:
        raise InputError(f"{uri}: no WARC record in it; remove it or fetch it again")


def _page(head: bytes, body: bytes | None, max_bytes: int) -> Raw:
    from fastwarc.warc import ArchiveIterator

    url = _field(head, b"warc-target-uri").decode("utf-8", "replace").strip("<>")
    date = _field(head, b"warc-date").decode("ascii", "replace")
    if body is None:
        return Raw(url, b"", date=date, drop="record-too-large")
    raw = head + body
    kind = _field(head, b"warc-type")
    if kind not in (b"response", b"resource"):
        return Raw(url, raw, date=date, drop=f"record-{kind.decode('ascii', 'replace') or 'without-type'}")
    record = next(iter(ArchiveIterator(BytesIO(raw + b"\r\n\r\n"), parse_http=True, auto_decode="all")), None)
    if record is None:
        return Raw(url, raw, date=date, drop="record-unreadable")
    content_type = _field(head, b"content-type").decode("latin-1")
    charset: str | None = None
    if kind == b"response":
        if not record.is_http_parsed:
            return Raw(url, raw, date=date, drop="no-http")
        if record.http_headers.status_code != 200:
            return Raw(url, raw, date=date, drop=f"http-{record.http_headers.status_code}")
        content_type, charset = record.http_content_type or "", record.http_charset
    given = _field(head, b"warc-identified-payload-type").decode("latin-1") or content_type
    if given.split(";")[0].strip().lower() not in HTML_TYPES:
        return Raw(url, raw, date=date, drop="not-html")
    # One byte more than allowed: a small record may unpack to gigabytes.
    html = record.reader.read(max_bytes + 1)
    if len(html) > max_bytes:
        return Raw(url, raw, date=date, drop="record-too-large")
    return Raw(url, raw, html=html, charset=charset, date=date)


def _field(head: bytes, name: bytes) -> bytes:
    """One header's value (the WARC type comes in lower case), empty where it is missing."""
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip().lower() if name == b"warc-type" else value.strip()
    return b""


def _length(head: bytes, uri: str, at: int) -> int:
    value = _field(head, b"content-length")
    if not value.isdigit():
        where = f"the record at byte {at - len(head)}"
        raise InputError(f"{uri}: {where} has Content-Length {value.decode('latin-1')!r}; fetch the file again")
    return int(value)


class _Stream:
    """Bytes taken in exact numbers from blocks; `at` is the number taken so far."""

    def __init__(self, data: Iterator[bytes], uri: str) -> None:
        self.data, self.uri, self.at = data, uri, 0
        self.buffer = b""
        self.start = 0

    def header(self) -> bytes | None:
        """The next record's header with its blank line; None at the end of the data."""
        while (end := self.buffer.find(b"\r\n\r\n", self.start)) < 0:
            if len(self.buffer) - self.start > MAX_HEADER:
                raise InputError(f"{self.uri}: no WARC header ends near byte {self.at}; fetch the file again")
            if not self._more():
                if self.start == len(self.buffer):
                    return None
                raise InputError(f"{self.uri}: cut off in a record's header at byte {self.at}; fetch the file again")
        head = self.take(end + 4 - self.start)
        if not head.startswith(b"WARC/"):
            raise InputError(f"{self.uri}: no WARC record starts at byte {self.at - len(head)}; fetch the file again")
        return head

    def take(self, length: int) -> bytes:
        """Exactly `length` bytes."""
        parts: list[bytes] = []
        missing = length
        while missing:
            if self.start == len(self.buffer) and not self._more():
                raise InputError(f"{self.uri}: cut off: {missing} bytes of its last record are missing; fetch it again")
            part = self.buffer[self.start : self.start + missing]
            parts.append(part)
            self.start += len(part)
            missing -= len(part)
        self.at += length
        return b"".join(parts)

    def skip(self, length: int) -> None:
        """Pass over `length` bytes without keeping them."""
        while length:
            length -= len(self.take(min(length, 1 << 20)))

    def _more(self) -> bool:
        block = next(self.data, b"")
        self.buffer, self.start = self.buffer[self.start :] + block, 0
        return bool(block)
