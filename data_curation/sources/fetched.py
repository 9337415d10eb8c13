"""Sources that are fetched: once, as a whole, and again when a file of them is damaged."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from data_curation.artifact import Artifact, Part
from data_curation.files import File
from data_curation.settings import InputError, canonical, sha256_of
from data_curation.sources import conversations, pydoc_pages, web
from data_curation.sources.debian import NothingFetchedError, download
from data_curation.sources.source import Source
from data_curation.sources.stamps import files_below, hashed, replace

_MARK = "source.json"


def fetched(source: Source, home: Path) -> tuple[Artifact, list[str]]:
    """The source as an artifact, fetched below `home` where it is not there yet, and what a person should read."""
    folder = folder_of(source, home)
    mark = read_mark(source, folder)
    if mark is None:
        _fetch(source, home, folder)
        mark = read_mark(source, folder)
        if mark is None:
            raise InputError(f"{folder}: was fetched, and another run replaced it with other settings; start again")
    files = tuple(File(**file) for file in mark["files"])
    return Artifact(source.name, str(folder), {"files": Part(files)}), mark["warnings"]


def folder_of(source: Source, home: Path) -> Path:
    """Where it is fetched to: other packages or another limit have a folder of their own, so that none replaces it."""
    return home / f"{source.name}-{sha256_of(_wanted(source))[:8]}"


def _wanted(source: Source) -> dict[str, Any]:
    return {"kind": source.kind, "packages": source.packages, "limit": source.limit}


def read_mark(source: Source, folder: Path) -> dict[str, Any] | None:
    """What was fetched, if it is what the source asks for and every file still has its hash."""
    path = folder / _MARK
    if not path.exists():
        return None
    mark = json.loads(path.read_text())
    if mark["wanted"] != _wanted(source) or not (folder / "files").is_dir():
        return None
    now = hashed(files_below(folder / "files"), folder / "hashes.json")
    return mark if [vars(file) for file in now] == mark["files"] else None


def _fetch(source: Source, home: Path, folder: Path) -> None:
    """Fetch into a folder of another name, mark it, then move it into place: half a source is never seen."""
    home.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{source.name}-", dir=home))
    try:
        warnings = _write(source, fresh / "debian", fresh / "files")
        shutil.rmtree(fresh / "debian", ignore_errors=True)
        files = hashed(files_below(fresh / "files"), fresh / "hashes.json")
        if not files:
            raise InputError(f"source {source.name!r}: nothing came out of the packages {', '.join(source.packages)}")
        mark = {"wanted": _wanted(source), "warnings": warnings, "files": [vars(file) for file in files]}
        replace(fresh / _MARK, canonical(mark))
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
