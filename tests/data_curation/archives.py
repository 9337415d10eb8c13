"""WARC records and packed files as bytes, right or wrong as a test wants them."""

import zlib

import pyarrow as pa


def record(
    body: bytes,
    *,
    kind: str = "response",
    head: str = "HTTP/1.1 200 OK",
    length: int | None = None,
    url: str = "",
    content_type: str = "text/html",
) -> bytes:
    """One WARC record, its Content-Length right unless another is given."""
    payload = f"{head}\r\nContent-Type: {content_type}\r\n\r\n".encode() + body if kind == "response" else body
    address = url or f"https://a.example/{len(body)}"
    fields = f"WARC-Type: {kind}\r\nWARC-Target-URI: {address}\r\nWARC-Date: 2020-02-02T02:02:02Z\r\n"
    given = "application/http; msgtype=response" if kind == "response" else content_type
    size = len(payload) if length is None else length
    return (
        f"WARC/1.0\r\n{fields}Content-Type: {given}\r\nContent-Length: {size}\r\n\r\n".encode() + payload + b"\r\n\r\n"
    )


def packed(*members: bytes) -> bytes:
    """Gzip members one after another."""
    made = b""
    for member in members:
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        made += packer.compress(member) + packer.flush()
    return made


def zstd(*frames: bytes) -> bytes:
    """Zstandard frames one after another."""
    return b"".join(pa.Codec("zstd").compress(frame, asbytes=True) for frame in frames)
