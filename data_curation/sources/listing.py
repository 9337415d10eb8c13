"""Sources resolved to listings: what must be fetched is fetched once, every file is named with its hash."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from data_curation.artifact import Artifact, Part
from data_curation.files import File, filesystem, is_local, join, listing, sha256_file
from data_curation.settings import ConfigError, InputError, canonical
from data_curation.sources import conversations, pydoc_pages, web
from data_curation.sources.debian import NothingFetchedError, download
from data_curation.sources.source import Source

SUFFIXES = {
    "warc": (".warc", ".warc.gz"),
    "html": (".html", ".htm", ".xhtml"),
    "jsonl": (".jsonl", ".jsonl.gz"),
    "parquet": (".parquet",),
}
_MARK = "source.json"


def resolve(source: Source, home: Path) -> tuple[Artifact, list[str]]:
    """The source as an artifact with the one part `files`, and sentences a person should read.

    Fetched sources lie in `home`/NAME/files from then on. Use `uri_of` for the files of either kind.
    """
    if source.fetched:
        return _fetched(source, home)
    found, ignored = _given(source)
    files = _hashed(source.path, found, home / "listings" / f"{source.name}.json")
    warnings = [f"{source.name}: {len(ignored)} files ignored, not {source.kind}: {ignored[0]} ..."] if ignored else []
    return Artifact(source.name, source.path, {"files": Part(tuple(files))}), warnings


def is_fetched(source: Source, home: Path) -> bool:
    """Whether `resolve` would find the files without fetching anything."""
    return not source.fetched or _read_mark(source, home / source.name) is not None


def uri_of(source: Source, listed: Artifact, path: str) -> str:
    """URI of one listed file: below the source's own path, or below the folder it was fetched into."""
    return listed.uri("files", path) if source.fetched else join(source.path, path)


# ---- given by path ------------------------------------------------------------------------------------------------


def _given(source: Source) -> tuple[dict[str, int], list[str]]:
    fs, root = filesystem(source.path)
    if not fs.exists(root):
        raise ConfigError(f"path of source {source.name!r} is {source.path!r}: no such folder; correct the path")
    everything = listing(source.path)
    links = _links(source, Path(root)) if is_local(source.path) else []
    found = {path: size for path, size in everything.items() if path.endswith(SUFFIXES[source.kind])}
    if not found:
        kinds = " or ".join(SUFFIXES[source.kind])
        raise ConfigError(f"path of source {source.name!r} is {source.path!r}: no file ends in {kinds} there")
    return found, links + [path for path in everything if path not in found]


def _links(source: Source, root: Path) -> list[str]:
    """Links below the folder: not followed, since what they name is listed in its own place; refused if it is not."""
    links = [path for path in sorted(root.rglob("*")) if path.is_symlink()]
    for path in links:
        if not path.resolve().is_relative_to(root.resolve()):
            raise InputError(f"{path}: a link that leaves the folder of source {source.name!r}; remove it")
    return [path.relative_to(root).as_posix() for path in links]


def _hashed(root: str, found: dict[str, int], cache: Path) -> list[File]:
    """Records of the files; a hash is computed again only when size or time of change differ (s3: its ETag)."""
    known: dict[str, list[Any]] = json.loads(cache.read_text()) if cache.exists() else {}
    fresh: dict[str, list[Any]] = {}
    for path, size in found.items():
        uri = join(root, path)
        stamp = _stamp(uri)
        old = known.get(uri)
        digest = stamp if stamp.startswith("etag:") else old[2] if old and old[:2] == [size, stamp] else None
        fresh[uri] = [size, stamp, digest or sha256_file(uri)]
    cache.parent.mkdir(parents=True, exist_ok=True)
    _replace(cache, canonical(fresh))
    return [File(path, size, fresh[join(root, path)][2]) for path, size in found.items()]


def _stamp(uri: str) -> str:
    fs, path = filesystem(uri)
    if is_local(uri):
        return str(Path(path).stat().st_mtime_ns)
    return f"etag:{str(fs.info(path).get('ETag', '')).strip(chr(34))}"


# ---- fetched ------------------------------------------------------------------------------------------------------


def _fetched(source: Source, home: Path) -> tuple[Artifact, list[str]]:
    folder = home / source.name
    mark = _read_mark(source, folder)
    if mark is None:
        _fetch(source, home, folder)
        mark = _read_mark(source, folder)
        if mark is None:
            raise InputError(f"{folder}: was fetched, and another run replaced it with other settings; start again")
    files = tuple(File(**file) for file in mark["files"])
    return Artifact(source.name, str(folder), {"files": Part(files)}), mark["warnings"]


def _wanted(source: Source) -> dict[str, Any]:
    return {"kind": source.kind, "packages": source.packages, "limit": source.limit}


def _read_mark(source: Source, folder: Path) -> dict[str, Any] | None:
    """What was fetched, if it is what the source asks for and every file still has its hash."""
    path = folder / _MARK
    if not path.exists():
        return None
    mark = json.loads(path.read_text())
    if mark["wanted"] != _wanted(source) or not (folder / "files").is_dir():
        return None
    now = _hashed(str(folder / "files"), listing(str(folder / "files")), folder / "hashes.json")
    return mark if [vars(file) for file in now] == mark["files"] else None


def _fetch(source: Source, home: Path, folder: Path) -> None:
    """Fetch into a folder of another name, mark it, then move it into place: half a source is never seen."""
    home.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{source.name}-", dir=home))
    try:
        warnings = _write(source, fresh / "debian", fresh / "files")
        shutil.rmtree(fresh / "debian", ignore_errors=True)
        files = _hashed(str(fresh / "files"), listing(str(fresh / "files")), fresh / "hashes.json")
        if not files:
            raise InputError(f"source {source.name!r}: nothing came out of the packages {', '.join(source.packages)}")
        mark = {"wanted": _wanted(source), "warnings": warnings, "files": [vars(file) for file in files]}
        _replace(fresh / _MARK, canonical(mark))
        fresh.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        try:
            fresh.rename(folder)
        except OSError:
            if not folder.exists():
                raise  # else another run was faster: what it fetched is as good
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _write(source: Source, scratch: Path, out: Path) -> list[str]:
    scratch.mkdir(parents=True)
    out.mkdir()
    packages = [name for name in source.packages if name not in conversations.INSTALLED]
    try:
        unpacked, missing = download(packages, scratch) if packages else ({}, [])
        warnings = [f"{source.name}: this Debian release lacks {name}; skipped" for name in missing]
    except NothingFetchedError as error:
        unpacked, warnings = {}, [f"{source.name}: nothing could be fetched ({error}); remove its folder to try again"]
    if source.kind == "chat-packages":
        conversations.write(source.packages, unpacked, out)
    elif unpacked:
        web.write_packages(unpacked, source.limit, out)
    else:
        pages = pydoc_pages.write_installed(source.limit, out)
        warnings.append(f"{source.name}: {pages} pages that pydoc rendered from the installed libraries stand in")
    return warnings


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    temporary.write_bytes(data)
    os.replace(temporary, path)
