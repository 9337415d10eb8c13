"""Compressed files as blocks of bytes: a cut file is an error, not the end of the data."""

import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from data_curation.settings import InputError

BLOCK = 1 << 17  # larger ones leave the processor's cache: a quarter slower
_MARK = b"end of the data, " * 4
_AGAIN = "fetch it again"


def blocks(stream: Any, uri: str) -> Iterator[bytes]:
    """A file's bytes, gzip (.gz) or Zstandard (.zst) undone, in small blocks however well they packed.

    InputError where the file is cut or damaged: nothing is yielded as if it were the end.
    """
    if uri.endswith(".gz"):
        yield from _gunzipped(stream, uri)
    elif uri.endswith(".zst"):
        yield from _unzstd(stream, uri)
    else:
        while block := stream.read(BLOCK):
            yield block


class _Marked:
    """A gzip stream with one more member behind it: whoever sees that one saw the end of all before it."""

    def __init__(self, raw: Any) -> None:
        self.raw, self.taken, self.ended = raw, 0, False

    def read(self, size: int = -1) -> bytes:
        data: bytes = b"" if self.ended else self.raw.read(size)
        self.taken += len(data)
        if not data and not self.ended:
            self.ended = True
            return _END if self.taken else b""
        return data

    def tell(self) -> int:
        return self.taken


def _member(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


_END = _member(_MARK)


def _gunzipped(stream: Any, uri: str) -> Iterator[bytes]:
    """fastwarc's reader is the fastest and checks every sum, but takes a cut file for a whole one: hence the mark."""
    from fastwarc.stream_io import GzipReader

    marked = _Marked(stream)
    reader, last, place = GzipReader(cast(BinaryIO, marked)), b"", -1
    while True:
        try:
            block = reader.read(BLOCK)
        except OSError as error:
            raise InputError(
                f"{uri}: not gzip, or cut or damaged, near byte {marked.taken}: {error}; {_AGAIN}"
            ) from None
        if not block:
            # An empty member, such as the one that ends a BGZF file, looks like the end; only there nothing moves on.
            if place == (place := reader.inner_tell()):
                break
            continue
        # The mark may lie across two blocks: so many bytes are held back.
        if len(block) < len(_MARK):
            block = last + block
            last = block[: max(0, len(block) - len(_MARK))]
            block = block[len(last) :]
        if last:
            yield last
        last = block
    if not last.endswith(_MARK):
        raise InputError(f"{uri}: cut off: its last gzip member has no end (byte {marked.taken}); {_AGAIN}")
    if len(last) > len(_MARK):
        yield last[: -len(_MARK)]


def _unzstd(stream: Any, uri: str) -> Iterator[bytes]:
    import pyarrow as pa

    seen = False
    with pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd") as reader:
        while True:
            try:
                block = reader.read(BLOCK)
            except OSError as error:
                raise InputError(f"{uri}: not Zstandard, or cut or damaged: {error}; {_AGAIN}") from None
            if not block:
                break
            seen = True
            yield block
        if not seen and stream.tell() == 0:
            raise InputError(f"{uri}: cut off: it has no Zstandard frame; {_AGAIN}")
