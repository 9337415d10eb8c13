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
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from data_curation.files import (
    create_exclusively,
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
from data_curation.settings import ConfigError, TokenmillError
from tasks.artifact import Manifest
from tasks.lease import BEAT_SECONDS, STALE_SECONDS, Lease, this_host

log = logging.getLogger("tokenmill")


@dataclass(frozen=True)
class Found:
    """The current artifact of a key, or why there is none."""

    manifest: Manifest | None
    home: str
    damage: str = ""
    """What is missing or has another size; empty if the artifact is whole or was never made."""


class Claim:
    """An attempt that this process holds; its heartbeat runs until `release` or `publish`."""

    def __init__(self, store: "Store", word: str, key: str, attempt: int, earlier: str | None) -> None:
        self.store, self.word, self.key, self.attempt, self.earlier = store, word, key, attempt, earlier
        self.home = store.uri(word, key, str(attempt))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name=f"lease-{word}")
        self._thread.start()

    def publish(self, manifest: Manifest) -> None:
        """Make the attempt the current artifact: its manifest appears whole, once, last."""
        if not create_exclusively(join(self.home, "manifest.json"), manifest.to_json()):
            raise TokenmillError(f"{self.home}: somebody else has written this attempt's manifest")
        self._end()

    def release(self) -> None:
        """Give the attempt up; the next one may start at once and adopt its complete pieces."""
        self._end()
        # A store that is away must not hide why the stage failed; without the mark the lease ends by itself.
        with suppress(Exception):
            write_bytes(join(self.home, "released"), b"")

    def _end(self) -> None:
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            try:
                write_bytes(join(self.home, "beat"), b"")
            except OSError as error:  # the store may be away for a moment; the lease lasts six beats
                log.warning("%s: heartbeat failed: %s", self.home, error)


class Store:
    """A folder or s3 prefix that holds every artifact and run."""

    def __init__(self, uri: str) -> None:
        self.root = uri.rstrip("/") if not is_local(uri) else str(local_path(uri))

    def uri(self, *path: str) -> str:
        """URI of something in the store."""
        return join(self.root, *path)

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
        numbers = [number for number in _attempts(files) if f"{number}/manifest.json" in files]
        if not numbers:
            return Found(None, home)
        attempt = str(max(numbers))
        home = join(home, attempt)
        manifest = Manifest.from_json(read_bytes(join(home, "manifest.json")), join(home, "manifest.json"))
        for path, size in manifest.expected().items():
            there = files.get(f"{attempt}/{path}")
            if there is None:
                return Found(manifest, home, f"file {path} is missing")
            if there != size:
                return Found(manifest, home, f"file {path} has {there} bytes, {size} were published")
        return Found(manifest, home)

    def claim(self, word: str, key: str, run: str, fresh: bool, say: Callable[[str], None]) -> Claim | Found:
        """Hold a new attempt, or find that the artifact is there. Waits for a live holder and says for whom.

        `fresh` makes a new attempt though there is a complete one, and adopts nothing but what this run itself began.
        """
        waited = ""
        while True:
            found = self.find(word, key)
            if found.manifest and not found.damage and not fresh:
                return found
            files = listing(self.uri(word, key))
            top = max(_attempts(files), default=0)
            holder = self._holder(word, key, top, files)
            if holder is not None:
                if waited != str(top):
                    waited = str(top)
                    say(f"waiting for {word} {key[:12]}: run {holder.run}, pid {holder.pid} on {holder.host} makes it")
                time.sleep(0.5)
                continue
            if create_exclusively(
                self.uri(word, key, str(top + 1), "lease.json"), json.dumps(asdict(Lease.mine(run))).encode()
            ):
                earlier = self.uri(word, key, str(top)) if top and self._adoptable(word, key, top, run, fresh) else None
                return Claim(self, word, key, top + 1, earlier)

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
        uri = self.uri(word, key, str(attempt), "manifest.json")
        return Manifest.from_json(read_bytes(uri), uri)

    def verify(self, word: str, key: str, attempt: int, deep: bool) -> list[str]:
        """What is wrong with an artifact's files: missing, another size and, if `deep`, other bytes."""
        home, wrong = self.uri(word, key, str(attempt)), list[str]()
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
        if not fs.exists(path):
            return []
        names = (str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in fs.ls(path, detail=False))
        return sorted((name for name in names if not name.startswith(".")), reverse=True)

    def read_run(self, run: str) -> dict[str, Any]:
        """What a run used and said (`run.json`)."""
        try:
            return json.loads(read_bytes(self.uri("runs", run, "run.json")))
        except FileNotFoundError as error:
            raise ConfigError(f"run {run!r} is not in {self.root}: `tokenmill runs` lists them") from error

    def in_progress(self, word: str, key: str, attempt: int) -> bool:
        """Whether a live process works on this attempt."""
        return self._holder(word, key, attempt, listing(self.uri(word, key))) is not None

    # ---- leases ----------------------------------------------------------------------------------------------------

    def _holder(self, word: str, key: str, attempt: int, files: dict[str, int]) -> Lease | None:
        """The live holder of an attempt without a manifest, if there is one."""
        if attempt == 0 or f"{attempt}/manifest.json" in files or f"{attempt}/released" in files:
            return None
        lease = self._lease(word, key, attempt)
        if lease is None:
            return None
        if lease.host == this_host():
            return lease if lease.alive_here() else None
        home = self.uri(word, key, str(attempt))
        beat = join(home, "beat") if f"{attempt}/beat" in files else join(home, "lease.json")
        return lease if self._now() - _modified(beat) < STALE_SECONDS else None

    def _lease(self, word: str, key: str, attempt: int) -> Lease | None:
        try:
            return Lease(**json.loads(read_bytes(self.uri(word, key, str(attempt), "lease.json"))))
        except FileNotFoundError:
            return None

    def _adoptable(self, word: str, key: str, attempt: int, run: str, fresh: bool) -> bool:
        lease = self._lease(word, key, attempt)
        return lease is not None and (not fresh or lease.run == run)

    def _now(self) -> float:
        """Seconds since the epoch by the store's own clock: hosts may disagree about the time."""
        probe = self.uri("runs", f".clock-{this_host()}-{os.getpid()}")
        write_bytes(probe, b"")
        return _modified(probe)


def _attempts(files: dict[str, int]) -> set[int]:
    return {int(match.group(1)) for path in files if (match := re.match(r"(\d+)/", path))}


def _modified(uri: str) -> float:
    fs, path = filesystem(uri)
    fs.invalidate_cache()
    when = fs.modified(path)
    return when.timestamp() if isinstance(when, datetime) else datetime.now(UTC).timestamp()
