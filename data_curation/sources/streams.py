"""Files of sources as streams of bytes, wherever they lie: a missing file and a lost connection told apart."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

from data_curation.files import filesystem, is_local
from data_curation.settings import InputError, TransientError

WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each further try at a web server; fsspec makes none, whereas s3fs makes its own."""
RANGE = 8 << 20
"""Bytes of one request to a web server."""
WRONG = (400, 401, 403, 404, 405, 410, 414, 451)
"""Answers of a web server that a second try would meet again."""
T = TypeVar("T")


def is_web(uri: str) -> bool:
    """Whether the URI is read from a web server."""
    return uri.startswith(("http://", "https://"))


@contextmanager
def opened(uri: str) -> Generator["Opened"]:
    """An open file; InputError where it is gone or cannot be read, TransientError where the network was in the way."""
    stream = attempt(uri, lambda: _open(uri))
    try:
        yield Opened(stream, uri)
    finally:
        stream.close()


def attempt(uri: str, action: Callable[[], T]) -> T:
    """What the action returns, its errors in our words; tried again where a web server fails for the moment."""
    for wait in (*(WAITS if is_web(uri) else ()), None):
        try:
            return action()
        except (OSError, ValueError, *_network(uri)) as error:
            final = _explained(uri, error)
            if wait is None or isinstance(final, InputError):
                raise final from error
        time.sleep(wait)
    raise AssertionError


class Opened:
    """An open file of a source: what it reads is counted, what goes wrong is named."""

    def __init__(self, raw: Any, uri: str) -> None:
        self.raw, self.uri = raw, uri
        self.taken = 0
        """Bytes read so far."""

    def read(self, size: int = -1) -> bytes:
        """The next bytes, empty at the end. After a lost connection reading goes on at the same byte."""
        if is_web(self.uri):
            at = self.raw.tell()
            data: bytes = attempt(self.uri, lambda: self._again(at, size))
        else:
            data = attempt(self.uri, lambda: self.raw.read(size))
        self.taken += len(data)
        return data

    def _again(self, at: int, size: int) -> bytes:
        if self.raw.tell() != at or self.raw.closed:
            self.raw.seek(at)
        return self.raw.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place in the file (Parquet is read from its end)."""
        return self.raw.seek(offset, whence)

    def tell(self) -> int:
        """The present place in the file."""
        return self.raw.tell()

    def readable(self) -> bool:
        """Always: this is an input file."""
        return True

    def seekable(self) -> bool:
        """Always, as far as anybody asks."""
        return True

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self.raw.closed

    def close(self) -> None:
        """Left to `opened`, since some readers close what they were given."""


def size_now(uri: str) -> int:
    """Bytes of a file as it is now; InputError where it is gone or is a folder."""

    def look() -> int:
        fs, path = filesystem(uri)
        found = fs.info(path)
        if found["type"] == "directory":
            raise IsADirectoryError(path)
        return int(found["size"] or 0)

    return attempt(uri, look)


def check_size(uri: str, size: int) -> None:
    """A file cut at a record's end looks whole: only its listed size tells."""
    now = size_now(uri)
    if now != size:
        raise InputError(f"{uri}: {now} bytes, {size} when it was listed: it was cut or replaced; run again")


def _open(uri: str) -> Any:
    fs, path = filesystem(uri)
    return fs.open(path, "rb", **({"block_size": RANGE} if is_web(uri) else {}))


def _network(uri: str) -> tuple[type[Exception], ...]:
    """What the libraries below fsspec raise besides OSError."""
    if uri.startswith(("s3://", "s3a://")):
        from botocore.exceptions import BotoCoreError

        return (BotoCoreError,)
    import asyncio

    from aiohttp import ClientError

    return (ClientError, asyncio.TimeoutError)


def _explained(uri: str, error: Exception) -> InputError | TransientError:
    """The error in our words: the file's own fault, or the network's."""
    cause = error.__cause__ or error  # fsspec calls every failed request a missing file and says why in the cause
    status = getattr(cause, "status", None)
    if isinstance(error, ValueError):
        return InputError(f"{uri}: {error}; copy the files to a folder or to s3 first")
    if is_web(uri) and status not in WRONG:
        return TransientError(f"{uri}: {type(cause).__name__}: {cause}; run again")
    if status is not None or isinstance(error, FileNotFoundError):
        answer = f" (the server answers {status})" if status else ""
        return InputError(f"{uri}: was listed and is gone{answer}; bring it back or run again")
    if isinstance(error, IsADirectoryError):
        return InputError(f"{uri}: is a folder, a file was listed; put the file back or run again")
    if isinstance(error, PermissionError) or is_local(uri):
        return InputError(f"{uri}: cannot be read: {error}; correct that or remove it")
    return TransientError(f"{uri}: {type(error).__name__}: {error}; run again")
