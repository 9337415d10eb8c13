"""Sources resolved to listings: what must be fetched is fetched once, every file is named with its hash."""

import json
from pathlib import Path
from typing import Any

from xxhash import xxh3_64_intdigest

from data_curation.artifact import Artifact, Part
from data_curation.files import File, filesystem, is_local, join, listing
from data_curation.settings import ConfigError, InputError, canonical
from data_curation.sources import hub, named
from data_curation.sources.fetched import fetched, folder_of, read_mark
from data_curation.sources.source import Source
from data_curation.sources.stamps import hashed, replace
from data_curation.sources.streams import is_web

SUFFIXES = {
    "warc": (".warc", ".warc.gz", ".wet", ".wet.gz"),
    "html": (".html", ".htm", ".xhtml"),
    "jsonl": (".jsonl", ".jsonl.gz", ".jsonl.zst"),
    "parquet": (".parquet",),
    "lines": (".txt", ".txt.gz", ".txt.zst"),
}


def resolve(source: Source, home: Path, *, ask: bool = True) -> tuple[Artifact, list[str]]:
    """The source as an artifact with the one part `files`, and sentences a person should read.

    Fetched sources lie in a folder below `home` from then on. Use `uri_of` for the files of any kind. Without `ask`,
    what a server said last time is taken for what it would say now.
    """
    if source.fetched:
        return fetched(source, home)
    if not _is_distant(source):
        return _given(source, home)
    commit = hub.known_commit(source) if source.kind == "hub" else ""
    if (commit or not ask) and (known := _recall(source, home, commit)) is not None:
        return known
    found = (_hub(source), list[str]()) if source.kind == "hub" else _given(source, home)
    _remember(source, home, commit, *found)
    return found


def is_fetched(source: Source, home: Path) -> bool:
    """Whether `resolve` would find the files without fetching or asking for anything."""
    if source.fetched:
        return read_mark(source, folder_of(source, home)) is not None
    commit = hub.known_commit(source) if source.kind == "hub" else ""
    return not _is_distant(source) or _recall(source, home, commit) is not None


def uri_of(source: Source, listed: Artifact, path: str) -> str:
    """URI of one listed file: below the source's own path, or below the folder it was fetched into."""
    if source.fetched:
        return listed.uri("files", path)
    if source.paths:
        return named.locate(source, path)
    return join(listed.home, path)


# ---- given by path ------------------------------------------------------------------------------------------------


def _given(source: Source, home: Path) -> tuple[Artifact, list[str]]:
    where = source.paths or source.path
    links: list[str] = []
    if source.paths:
        root, everything = named.base_of(source), named.names(source)
    else:
        root, everything, links = source.path, *_below(source)
    found = [path for path in everything if path.endswith(SUFFIXES[source.kind])]
    if not found:
        kinds = " or ".join(SUFFIXES[source.kind])
        raise ConfigError(f"path of source {source.name!r} is {where!r}: no file ends in {kinds} there")
    chosen = _some(found, source.files)
    if named.web(source):
        files = named.web_files(source, chosen)
    else:
        uris = {path: named.locate(source, path) if source.paths else join(root, path) for path in chosen}
        files = hashed(uris, home / "listings" / f"{source.name}.json")
    other = links + sorted(set(everything) - set(found))
    warnings = [f"{source.name}: {len(other)} files ignored, not {source.kind}: {other[0]} ..."] if other else []
    return Artifact(source.name, root, {"files": Part(tuple(files))}), warnings


def _below(source: Source) -> tuple[list[str], list[str]]:
    """Paths of all files, and of all links, below the source's folder or prefix."""
    fs, root = filesystem(source.path)
    if is_web(source.path):
        raise ConfigError(f"path of source {source.name!r} is {source.path!r}: web servers list no files; give paths")
    if not fs.exists(root):
        raise ConfigError(f"path of source {source.name!r} is {source.path!r}: no such folder; correct the path")
    if fs.isfile(root):
        raise ConfigError(f"path of source {source.name!r} is {source.path!r}: a file; name its folder")
    found = list(listing(source.path))
    for path in found:
        if not path.isprintable() or path != path.encode("utf-8", "replace").decode():
            raise InputError(f"source {source.name!r}: {path!r} below {source.path} is no printable name; rename it")
    return found, _links(source, Path(root)) if is_local(source.path) else []


def _links(source: Source, root: Path) -> list[str]:
    """Links below the folder: not followed, since what they name is listed in its own place; refused if it is not."""
    links = [path for path in sorted(root.rglob("*")) if path.is_symlink()]
    for path in links:
        if not path.resolve().is_relative_to(root.resolve()):
            raise InputError(f"{path}: a link that leaves the folder of source {source.name!r}; remove it")
    return [path.relative_to(root).as_posix() for path in links]


# ---- on a server ----------------------------------------------------------------------------------------------------


def _is_distant(source: Source) -> bool:
    return source.kind == "hub" or named.web(source)


def _hub(source: Source) -> Artifact:
    everything = hub.listed(source)
    files = {file.path: file for file in everything.part("files").files}
    chosen = tuple(files[path] for path in _some(list(files), source.files))
    return Artifact(source.name, everything.home, {"files": Part(chosen)})


def _asked(source: Source, commit: str) -> dict[str, Any]:
    names = ("kind", "path", "paths", "base", "files", "config", "split", "revision")
    return {name: getattr(source, name) for name in names} | {"commit": commit}


def _remember(source: Source, home: Path, commit: str, listed: Artifact, warnings: list[str]) -> None:
    files = [vars(file) for file in listed.part("files").files]
    known = {"asked": _asked(source, commit), "home": listed.home, "files": files, "warnings": warnings}
    cache = home / "listings" / f"{source.name}.distant.json"
    cache.parent.mkdir(parents=True, exist_ok=True)
    replace(cache, canonical(known))


def _recall(source: Source, home: Path, commit: str) -> tuple[Artifact, list[str]] | None:
    """What the server said last time, if it was asked for the same."""
    cache = home / "listings" / f"{source.name}.distant.json"
    known = json.loads(cache.read_text()) if cache.exists() else None
    if known is None or known["asked"] != _asked(source, commit):
        return None
    files = tuple(File(**file) for file in known["files"])
    return Artifact(source.name, known["home"], {"files": Part(files)}), known["warnings"]


def _some(paths: list[str], most: int | None) -> list[str]:
    """At most so many of the paths, chosen by hash: as long as the list grows at its end, most of them stay chosen."""
    return sorted(sorted(paths, key=lambda path: (xxh3_64_intdigest(path), path))[:most])
