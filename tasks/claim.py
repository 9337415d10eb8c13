"""Claims on attempts: one process holds one, says that it lives, publishes it or gives it up."""

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict

from data_curation.files import create_exclusively, join, listing, modified, read_bytes, remove, write_bytes
from data_curation.settings import TokenmillError
from tasks.artifact import Manifest
from tasks.lease import BEAT_SECONDS, HELD, STALE_SECONDS, Lease, alive, this_host
from tasks.store import Found, Store, attempts

log = logging.getLogger("tokenmill")


class Claim:
    """An attempt that this process holds; its heartbeat runs until `release` or `publish`."""

    def __init__(self, store: Store, word: str, key: str, attempt: int, token: str) -> None:
        self.word, self.key, self.attempt, self.token = word, key, attempt, token
        self.home = store.home(word, key, attempt)
        self.earlier: list[str] = []
        """URIs of earlier attempts whose complete pieces may be adopted, the newest first."""
        self.other_code: list[int] = []
        """Earlier attempts that may not be: another version of the stage's file made them."""
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
        HELD.discard(self.token)

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            try:
                write_bytes(join(self.home, "beat"), b"")
            except Exception as error:  # the store may be away for a moment; the lease lasts six beats
                log.warning("%s: heartbeat failed: %s", self.home, error)


def hold(
    store: Store,
    word: str,
    key: str,
    lease: Lease,
    say: Callable[[str], None],
    *,
    fresh: bool = False,
    any_code: bool = False,
) -> Claim | Found:
    """Hold a new attempt, or find that the artifact is there. Waits for a live holder and says for whom.

    `fresh` makes a new attempt though there is a complete one, and adopts nothing but what this run itself began.
    What another version of the stage's file made is adopted with `any_code` only.
    """
    waited = 0
    while True:
        found = store.find(word, key)
        if found.whole and not fresh:
            return found
        files = listing(store.uri(word, key))
        top = max(attempts(files), default=0)
        holder = _holder(store, word, key, top, files)
        if holder is not None:
            if waited != top:
                waited = top
                say(f"waiting for {word} {key[:12]}: run {holder.run}, pid {holder.pid} on {holder.host} makes it")
            time.sleep(0.5)
            continue
        held = _begin(store, word, key, top + 1, lease)
        if held is None:
            continue
        try:
            # The holder may have published and ended between the look and the claim.
            found = store.find(word, key)
            if found.whole and not fresh:
                held.release()
                return found
            _look_back(store, held, lease, fresh, any_code)
        except BaseException:
            held.release()
            raise
        return held


def in_progress(store: Store, word: str, key: str, attempt: int) -> bool:
    """Whether a live process works on this attempt."""
    return _holder(store, word, key, attempt, listing(store.uri(word, key))) is not None


def lease_of(store: Store, word: str, key: str, attempt: int) -> Lease | None:
    """Who claimed an attempt."""
    try:
        return Lease(**json.loads(read_bytes(store.home(word, key, attempt, "lease.json"))))
    except FileNotFoundError:
        return None


def _begin(store: Store, word: str, key: str, attempt: int, lease: Lease) -> Claim | None:
    """Claim an attempt, if nobody else was quicker."""
    HELD.add(lease.token)
    try:
        uri = store.home(word, key, attempt, "lease.json")
        if create_exclusively(uri, json.dumps(asdict(lease)).encode()):
            return Claim(store, word, key, attempt, lease.token)
    except BaseException:
        HELD.discard(lease.token)
        raise
    HELD.discard(lease.token)
    return None


def _look_back(store: Store, held: Claim, mine: Lease, fresh: bool, any_code: bool) -> None:
    """Find the attempts whose pieces may be adopted: two kills in a row must not lose what the first left."""
    for attempt in range(held.attempt - 1, 0, -1):
        lease = lease_of(store, held.word, held.key, attempt)
        if lease is None or (fresh and lease.run != mine.run):
            continue
        if any_code or lease.code == mine.code:
            held.earlier.append(store.home(held.word, held.key, attempt))
        else:
            held.other_code.append(attempt)


def _holder(store: Store, word: str, key: str, attempt: int, files: dict[str, int]) -> Lease | None:
    """The live holder of an attempt without a manifest, if there is one."""
    if attempt == 0 or f"{attempt}/manifest.json" in files or f"{attempt}/released" in files:
        return None
    lease = lease_of(store, word, key, attempt)
    if lease is None:
        return None
    if lease.host == this_host():
        # A claim that this process lost by an error must not make its own retry wait.
        here = lease.token in HELD if lease.token and lease.mine else alive(lease.pid, lease.started)
        return lease if here else None
    home = store.home(word, key, attempt)
    beat = join(home, "beat") if f"{attempt}/beat" in files else join(home, "lease.json")
    return lease if _now(store) - modified(beat) < STALE_SECONDS else None


def _now(store: Store) -> float:
    """Seconds since the epoch by the store's own clock: hosts may disagree about the time."""
    probe = store.uri("runs", f".clock-{uuid.uuid4().hex}")
    write_bytes(probe, b"")
    now = modified(probe)
    remove(probe)
    return now
