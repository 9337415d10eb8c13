"""HTML pages written as WARC files whose bytes follow from the pages alone."""

import base64
import hashlib
import uuid
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import xxhash

PAGES_PER_FILE = 250
DATE = "2000-01-01T00:00:00Z"
"""Every record's WARC-Date: a package says when it was built, not when a page was written."""


@dataclass(frozen=True)
class Page:
    """One HTML page: its URL, and the file that holds it or its bytes."""

    url: str
    html: Path | bytes

    def read(self) -> bytes:
        """The page's bytes."""
        return self.html if isinstance(self.html, bytes) else self.html.read_bytes()


def write(pages: Iterable[Page], folder: Path) -> int:
    """Write pages as `web-00000.warc.gz`, ... of 250 each, in the order given; returns their number."""
    folder.mkdir(parents=True, exist_ok=True)
    rest, count = iter(pages), 0
    for index, first in enumerate(rest):
        share = [first, *islice(rest, PAGES_PER_FILE - 1)]
        with (folder / f"web-{index:05d}.warc.gz").open("wb") as out:
            for block in _members(share):
                out.write(block)
        count += len(share)
    return count


def _members(pages: list[Page]) -> Iterator[bytes]:
    yield _member(_block("warcinfo", "application/warc-fields", b"software: tokenmill\r\nformat: WARC/1.0\r\n"))
    for page in pages:
        body = page.read()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        digest = f"sha1:{_base32_sha1(body)}"
        # Without the payload type a reader has to guess, and takes XHTML for XML.
        extra = {"WARC-Identified-Payload-Type": "text/html", "WARC-Payload-Digest": digest}
        yield _member(_block("response", "application/http; msgtype=response", head + body, page.url, extra))


def _block(kind: str, content_type: str, body: bytes, url: str = "", extra: dict[str, str] | None = None) -> bytes:
    identity = uuid.UUID(int=xxhash.xxh3_128_intdigest(kind.encode() + b"\0" + url.encode() + b"\0" + body))
    fields = {
        "WARC-Type": kind,
        "WARC-Record-ID": f"<urn:uuid:{identity}>",
        "WARC-Date": DATE,
        **({"WARC-Target-URI": url} if url else {}),
        **(extra or {}),
        "Content-Type": content_type,
        "Content-Length": str(len(body)),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"WARC/1.0\r\n{lines}\r\n".encode() + body + b"\r\n\r\n"


def _member(block: bytes) -> bytes:
    """One gzip member per record, as the WARC standard asks; zlib leaves the header's time at 0."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(block) + packer.flush()


def _base32_sha1(body: bytes) -> str:
    return base64.b32encode(hashlib.sha1(body, usedforsecurity=False).digest()).decode()
