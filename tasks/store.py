"""The store: attempts of stages, found by key, claimed with a lease, published by a manifest.

    STORE/<word>/<key>/<n>/lease.json      claims attempt n, created exclusively, written once
                          /beat            renewed every 15 s by the holder
                          /released        the holder gave up in an orderly way
                          /<part>/...      output
                          /work/...        pieces, checkpoints, logs
                          /records/...     metrics and plots
                          /manifest.json   written once, exclusively, last
    STORE/runs/<run>/...                   what each run used and said

A zombie writes only into its own n; the current artifact is the highest n with a manifest.
"""

import json
import os
import re
import time
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Found:
    """The current artifact of a key, or why there is none."""

    manifest: Manifest | None
    home: str
    damage: str = ""
    """What is missing or has another size; empty if the artifact is whole or was never made."""

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
        return Found(manifest, home)

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
        manifest, files = self.manifest(word, key, attempt), listing(home)
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
            if not fs.exists(path):
                return []
        except Exception as error:
            if is_transient(error):
                raise
            raise ConfigError(f"run.store: cannot read {self.root} ({error}): see s3 in docs/operating.md") from error
        names = (str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in fs.ls(path, detail=False))
        return sorted((name for name in names if not name.startswith(".")), reverse=True)

    def read_run(self, run: str) -> dict[str, Any]:
        """What a run used and said (`run.json`)."""
        try:
            return json.loads(read_bytes(self.uri("runs", run, "run.json")))
        except FileNotFoundError as error:
            raise ConfigError(f"run {run!r} is not in {self.root}: `tokenmill runs` lists them") from error


def attempts(files: dict[str, int]) -> set[int]:
    """Numbers of the attempts among the files below a key."""
    return {int(match.group(1)) for path in files if (match := re.match(r"(\d+)/", path))}
