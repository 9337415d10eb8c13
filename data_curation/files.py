"""Files on disk and on s3 through fsspec: joining, listing, hashing while writing, exclusive creation."""

import hashlib
import os
import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

BLOCK = 1 << 20


@dataclass(frozen=True)
class File:
    """One file of an artifact: path below its part, bytes, hex sha256, and rows where rows make sense."""

    path: str
    size: int
    sha256: str
    rows: int | None = None


@dataclass
class Writer:
    """An open output file that hashes what passes through; set `rows` before it closes if rows make sense."""

    raw: BinaryIO
    size: int = 0
    rows: int | None = None
    sha256: Any = field(default_factory=hashlib.sha256)

    def write(self, data: bytes) -> int:
        """Write bytes and hash them; returns their number."""
        view = memoryview(data).cast("B")
        self.sha256.update(view)
        self.size += len(view)
        self.raw.write(view)
        return len(view)

    def tell(self) -> int:
        """Bytes written so far (pyarrow asks for it)."""
        return self.size

    def flush(self) -> None:
        """Hand buffered bytes on."""
        self.raw.flush()

    def writable(self) -> bool:
        """Always: this is an output file."""
        return True

    def readable(self) -> bool:
        """Never: this is an output file."""
        return False

    def seekable(self) -> bool:
        """Never: the hash is taken in writing order."""
        return False

    @property
    def closed(self) -> bool:
        """Whether the file below is closed."""
        return self.raw.closed

    def close(self) -> None:
        """Left to `writing`, which closes and names the file."""


def filesystem(uri: str | Path) -> tuple[Any, str]:
    """The fsspec file system of a URI or path, and the path in its terms."""
    fs, path = fsspec.core.url_to_fs(str(uri), **_options(str(uri)))
    return fs, path


def is_local(uri: str | Path) -> bool:
    """Whether the URI names a local path."""
    return isinstance(filesystem(uri)[0], LocalFileSystem)


def local_path(uri: str | Path) -> Path:
    """The local path that a local URI names."""
    return Path(filesystem(uri)[1])


def join(uri: str | Path, *parts: str) -> str:
    """A URI below another one."""
    return "/".join([str(uri).rstrip("/"), *(part.strip("/") for part in parts if part)])


@contextmanager
def writing(uri: str) -> Generator[Writer]:
    """Open `uri` for writing; on disk the name appears only when all bytes are there, on an error never."""
    fs, path = filesystem(uri)
    if not isinstance(fs, LocalFileSystem):
        # An s3 object appears as a whole when its file closes; `discard` on an error leaves nothing.
        raw: Any = fs.open(path, "wb")
        try:
            yield Writer(raw)
        except BaseException:
            raw.discard()
            raise
        raw.close()
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{uuid.uuid4().hex}.part"
    try:
        with open(temporary, "wb") as raw:
            yield Writer(raw)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def read_bytes(uri: str) -> bytes:
    """All bytes of a small file."""
    fs, path = filesystem(uri)
    # Otherwise s3fs asks for the size first, to read a large one in several shares.
    whole = {"max_concurrency": 1} if _on_s3(uri) else {}
    return cast(bytes, fs.cat_file(path, **whole))


def write_bytes(uri: str, data: bytes) -> File:
    """Write a small file whole; returns its record (path is the last name)."""
    with writing(uri) as out:
        out.write(data)
    return File(uri.rsplit("/", 1)[-1], out.size, out.sha256.hexdigest())


def create_exclusively(uri: str, data: bytes) -> bool:
    """Create the file with these bytes if nobody has; False if it is there (link(2) on disk, If-None-Match on s3).

    Give bytes that nobody else would write: on s3 the answer to a creation may be lost, and the client's second try
    then meets its own file, which is told by them.
    """
    fs, path = filesystem(uri)
    if not isinstance(fs, LocalFileSystem):
        return _create_object(fs, path, data)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{uuid.uuid4().hex}.part"
    Path(temporary).write_bytes(data)
    try:
        # link(2) refuses an existing name and shows the file only when it is whole: open(O_EXCL) shows it empty first.
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(temporary)
    return True


def _create_object(fs: Any, path: str, data: bytes) -> bool:
    for tries in range(5, -1, -1):
        try:
            fs.pipe_file(path, data, mode="create")
            return True
        except OSError as error:
            answer = getattr(error.__cause__ or error, "response", {})
            code = str(answer.get("Error", {}).get("Code", ""))
            if isinstance(error, FileExistsError) or code in ("PreconditionFailed", "412"):
                return bool(fs.cat_file(path) == data)
            if code not in ("ConditionalRequestConflict", "409") or not tries:
                raise
            time.sleep(0.2)  # two creations at one moment: s3 asks both to try again
    raise AssertionError


def sha256_file(uri: str) -> str:
    """Hex sha256 of a file's bytes, read in blocks."""
    fs, path = filesystem(uri)
    digest = hashlib.sha256()
    with fs.open(path, "rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def listing(uri: str) -> dict[str, int]:
    """Every file below a folder: path relative to it -> bytes, sorted; empty where the folder does not exist."""
    fs, root = filesystem(uri)
    fs.invalidate_cache()
    try:
        found = fs.find(root, detail=True)
    except FileNotFoundError:  # no such bucket; below one that is there nothing is found
        found = {}
    start = len(root.rstrip("/")) + 1
    return {path[start:]: int(info["size"]) for path, info in sorted(found.items()) if info["type"] == "file"}


def modified(uri: str) -> float:
    """When a file was last written, seconds since the epoch by the clock of where it lies."""
    fs, path = filesystem(uri)
    fs.invalidate_cache()
    when = fs.modified(path)
    return when.timestamp() if isinstance(when, datetime) else datetime.now(UTC).timestamp()


def copy_file(source: str, target: str, *, link: bool = True) -> None:
    """Copy inside or between file systems: a hard link on one disk (unless not wanted), on s3 by the server."""
    fs, path = filesystem(source)
    fs_to, path_to = filesystem(target)
    if isinstance(fs, LocalFileSystem) and isinstance(fs_to, LocalFileSystem):
        os.makedirs(os.path.dirname(path_to), exist_ok=True)
        if os.path.exists(path_to):
            os.unlink(path_to)
        with suppress(OSError):  # another disk, or one without hard links: copy the bytes below
            if link:
                os.link(path, path_to)
                return
    elif type(fs) is type(fs_to):
        fs.copy(path, path_to)
        return
    with fs.open(path, "rb") as stream, writing(target) as out:
        while block := cast(bytes, stream.read(BLOCK)):
            out.write(block)


def remove(uri: str) -> None:
    """Remove a file or a folder with all below it, if it is there."""
    fs, path = filesystem(uri)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def _options(uri: str) -> dict[str, Any]:
    # A cached directory listing would hide what another host wrote a second ago.
    return {"use_listings_cache": False} if _on_s3(uri) else {}


def _on_s3(uri: str) -> bool:
    return uri.startswith(("s3://", "s3a://"))
