"""Hashes of a source's files, computed again only when a file has changed."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from data_curation.files import File, filesystem, is_local, listing, sha256_file
from data_curation.settings import InputError, canonical


def hashed(uris: dict[str, str], cache: Path) -> list[File]:
    """Records of the files (path: URI); a hash is computed again only when size or time of change differ (s3: ETag)."""
    known: dict[str, list[Any]] = json.loads(cache.read_text()) if cache.exists() else {}
    fresh: dict[str, list[Any]] = {}
    for uri in uris.values():
        size, stamp = _stamp(uri)
        old = known.get(uri)
        digest = stamp if stamp.startswith("etag:") else old[2] if old and old[:2] == [size, stamp] else None
        fresh[uri] = [size, stamp, digest or sha256_file(uri)]
    with suppress(OSError):  # what cannot be remembered is computed again
        cache.parent.mkdir(parents=True, exist_ok=True)
        replace(cache, canonical(fresh))
    return [File(path, fresh[uri][0], fresh[uri][2]) for path, uri in uris.items()]


def _stamp(uri: str) -> tuple[int, str]:
    """Bytes of a file, and what changes with its contents."""
    fs, path = filesystem(uri)
    try:
        if is_local(uri):
            status = Path(path).stat()
            return status.st_size, str(status.st_mtime_ns)
        info = fs.info(path)
    except FileNotFoundError:
        raise InputError(f"{uri}: is listed and not there; bring it back or take it from the list") from None
    return int(info["size"]), f"etag:{str(info.get('ETag', '')).strip(chr(34))}"


def files_below(folder: Path) -> dict[str, str]:
    """All files of a folder as `hashed` takes them."""
    return {path: str(folder / path) for path in listing(str(folder))}


def replace(path: Path, data: bytes) -> None:
    """Write a small file so that nobody sees half of it."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    temporary.write_bytes(data)
    os.replace(temporary, path)
