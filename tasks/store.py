"""The store: attempts of stages, found by key, claimed with a lease, published by a manifest.

    STORE/<word>/<key>/<n>/lease.json      claims attempt n, created exclusively, written once
                          /beat            renewed every 15 s by the holder
                          /released        the holder gave up in an orderly way
                          /<part>/...      output
                          /work/...        pieces, checkpoints, logs
                          /records/...     metrics and plots
                          /manifest.json   written once, exclusively, last
    STORE/runs/<run>/...                   what each run used and said
    STORE/kept/<run>                       `prune` keeps what this run reaches

A zombie writes only into its own n; the current artifact is the highest n with a manifest.
"""

import json
import os
import re
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from data_curation.files import (
    filesystem,
    is_local,
    join,
    listing,
    local_path,
    read_bytes,
    remove,
    sha256_file,
    write_bytes,
)
from data_curation.settings import ConfigError, is_transient
from tasks.artifact import Manifest

THREADS = 16
KEPT = "kept"
"""Folder of the marks: outside of `runs/`, where a run that goes on writes over its own file."""


@dataclass(frozen=True)
class Found:
    """The current artifact of a key, or why there is none."""

    manifest: Manifest | None
    home: str
    damage: str = ""
    """What is missing or has another size; empty if the artifact is whole or was never made."""
    accepted: frozenset[str] = frozenset()
    """Hashes of later versions of the stage's file for which it was said to be still right."""

    @property
    def whole(self) -> bool:
        """Whether it is there with all of its files."""
        return self.manifest is not None and not self.damage


class Store:
    """A folder or s3 prefix that holds every artifact and run."""

    def __init__(self, uri: str) -> None:
        self.root = uri.rstrip("/") if not is_local(uri) else str(local_path(uri))

    def uri(self, *path: str) -> str:
        """URI of something in the store."""
        return join(self.root, *path)

    def home(self, word: str, key: str, attempt: int, *path: str) -> str:
        """URI of an attempt's folder, or of something in it."""
        return self.uri(word, key, str(attempt), *path)

    def check_writable(self) -> None:
        """A ConfigError if nothing can be written here, before anything runs."""
        probe = self.uri("runs", f".probe-{os.getpid()}-{time.time_ns()}")
        try:
            write_bytes(probe, b"")
            remove(probe)
        except Exception as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ConfigError(f"run.store: cannot write to {self.root} ({reason}): choose another store") from error

    def find(self, word: str, key: str) -> Found:
        """The current artifact, checked by one listing: every listed file is there with its size."""
        home = self.uri(word, key)
        files = listing(home)
        numbers = [number for number in attempts(files) if f"{number}/manifest.json" in files]
        if not numbers:
            return Found(None, home)
        attempt = str(max(numbers))
        home = join(home, attempt)
        data = read_bytes(join(home, "manifest.json"))
        if not Manifest.readable(data):
            return Found(None, home, "its manifest.json is damaged")
        manifest = Manifest.from_json(data, join(home, "manifest.json"))
        for path, size in manifest.expected().items():
            there = files.get(f"{attempt}/{path}")
            if there is None:
                return Found(manifest, home, f"file {path} is missing")
            if there != size:
                return Found(manifest, home, f"file {path} has {there} bytes, {size} were published")
        accepted = (path.removeprefix(f"{attempt}/accepted/") for path in files if f"{attempt}/accepted/" in path)
        return Found(manifest, home, accepted=frozenset(accepted))

    def current(self, word: str | None = None) -> list[tuple[str, str, int]]:
        """(word, key, n) of every attempt that has a manifest, highest n first within a key."""
        found: list[tuple[str, str, int]] = []
        for path in listing(self.uri(word or "")):
            parts = ([word] if word else []) + path.split("/")
            if len(parts) == 4 and parts[3] == "manifest.json" and parts[0] != "runs":
                found.append((str(parts[0]), str(parts[1]), int(str(parts[2]))))
        return sorted(found, key=lambda item: (item[0], item[1], -item[2]))

    def manifest(self, word: str, key: str, attempt: int) -> Manifest:
        """One manifest by its place."""
        uri = self.home(word, key, attempt, "manifest.json")
        return Manifest.from_json(read_bytes(uri), uri)

    def verify(self, word: str, key: str, attempt: int, deep: bool) -> list[str]:
        """What is wrong with an artifact's files: missing, another size and, if `deep`, other bytes."""
        home, wrong = self.home(word, key, attempt), list[str]()
        files = listing(home)  # first: `drop` says in the manifest what it will remove
        manifest = self.manifest(word, key, attempt)
        for path, size in manifest.expected().items():
            if files.get(path) != size:
                wrong.append(f"{join(home, path)}: {files.get(path, 'missing')} instead of {size} bytes")
        if deep and not wrong:
            hashes = {f"{name}/{file.path}": file for name, part in manifest.parts.items() for file in part.files}
            hashes |= {f"records/{file.path}": file for file in manifest.records}
            for path in manifest.expected():
                if sha256_file(join(home, path)) != hashes[path].sha256:
                    wrong.append(f"{join(home, path)}: other bytes than were published")
        return wrong

    def drop(self, word: str, key: str, attempt: int, part: str) -> None:
        """Remove the files of a part and keep in the manifest that they were dropped, which is no damage."""
        manifest = self.manifest(word, key, attempt)
        without = replace(manifest, dropped=sorted({*manifest.dropped, part}))
        # The manifest goes first: half a removal must not look like a damaged artifact.
        write_bytes(self.home(word, key, attempt, "manifest.json"), without.to_json())
        remove(self.home(word, key, attempt, part))

    # ---- runs ------------------------------------------------------------------------------------------------------

    def write_run(self, run: str, name: str, data: bytes) -> str:
        """Keep one file of a run; returns its URI."""
        uri = self.uri("runs", run, name)
        write_bytes(uri, data)
        return uri

    def runs(self) -> list[str]:
        """Names of all runs, newest first."""
        fs, path = filesystem(self.uri("runs"))
        try:
            entries = fs.ls(path, detail=False)
        except FileNotFoundError:
            return []
        except Exception as error:
            if is_transient(error):
                raise
            raise ConfigError(f"run.store: cannot read {self.root} ({error}): see s3 in docs/operating.md") from error
        names = (str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries)
        return sorted((name for name in names if not name.startswith(".")), reverse=True)

    def read_run(self, run: str) -> dict[str, Any]:
        """What a run used and said (`run.json`)."""
        try:
            return json.loads(read_bytes(self.uri("runs", run, "run.json")))
        except FileNotFoundError as error:
            raise ConfigError(f"run {run!r} is not in {self.root}: `tokenmill runs` lists them") from error

    def read_runs(self, runs: Iterable[str]) -> list[dict[str, Any]]:
        """As `read_run` for several, in their order, many at once: on s3 each waits for an answer."""
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(self.read_run, runs))

    def keep_run(self, run: str, kept: bool) -> None:
        """Mark a run, so that `prune` keeps what it reaches, or take the mark away."""
        self.read_run(run)  # or an error with words
        if kept:
            write_bytes(self.uri(KEPT, run), b"")
        else:
            remove(self.uri(KEPT, run))

    def kept_runs(self) -> set[str]:
        """Names of the runs that are marked to be kept."""
        return set(listing(self.uri(KEPT)))


def attempts(files: dict[str, int]) -> set[int]:
    """Numbers of the attempts among the files below a key."""
    return {int(match.group(1)) for path in files if (match := re.match(r"(\d+)/", path))}
