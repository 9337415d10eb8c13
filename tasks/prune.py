"""Removes from a store what no kept run reaches, and what kept runs need only to train on."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from data_curation.files import join, remove
from data_curation.settings import ConfigError
from tasks.care import Attempt, attempts_of, goes_on
from tasks.claim import in_progress, lease_of
from tasks.lease import alive, this_host
from tasks.store import THREADS, Store

RESUMED = {"pretrain": "state"}
"""Stage -> the part of it that only its own kind reads, to train on; its model stands without."""


@dataclass(frozen=True)
class Keep:
    """Which runs are kept, beside those that go on and those that are marked (`tokenmill runs --keep`)."""

    newest: int = 10
    """The newest runs, whatever became of them."""
    days: float = 30.0
    """Runs that said something in the last days."""
    state: bool = True
    """Whether old runs keep what only further training needs (optimizer states)."""

    def check(self) -> None:
        """A ConfigError where a number means nothing."""
        for option, value in (("--keep", self.newest), ("--days", self.days)):
            if value < 0:
                raise ConfigError(f"{option} is {value:g}: give 0 or more")


@dataclass
class Pruned:
    """What was, or would be, removed, and for which runs the rest stays."""

    freed: list[dict[str, Any]] = field(default_factory=list)
    """{"uri", "bytes"} of attempts, and of parts of kept ones."""
    kept: list[str] = field(default_factory=list)
    """Names of the kept runs, newest first."""


def prune_store(store: Store, keep: Keep, apply: bool) -> Pruned:
    """Attempts that no kept run used, and parts that no kept run needs: removed if `apply`, only named otherwise.

    What an attempt's own process, or another try of its run, may need is kept too, with a manifest or without.
    """
    keep.check()
    sizes, reached, found = attempts_of(store), _Reached(store, keep), Pruned()
    with ThreadPoolExecutor(THREADS) as pool:  # on s3 each lease waits for an answer
        needed = dict(zip(sizes, pool.map(reached.has, sizes), strict=True))
    for attempt, size in sorted(sizes.items()):
        if needed[attempt]:
            continue
        uri = store.home(*attempt)
        if apply:
            reached.look()  # a run may have come to need it since
            if reached.has(attempt):
                continue
            # The manifest goes first: half a removal must not look like a damaged artifact.
            remove(join(uri, "manifest.json"))
            remove(uri)
        found.freed.append({"uri": uri, "bytes": size})
    if not keep.state:
        found.freed += _states(store, sorted(reached.used & sizes.keys()), reached, apply)
    found.kept = sorted(reached.runs, reverse=True)
    return found


def _states(store: Store, attempts: Iterable[Attempt], reached: "_Reached", apply: bool) -> Iterator[dict[str, Any]]:
    """The parts of kept attempts that no kept run will train on from."""
    for attempt in attempts:
        part = RESUMED.get(attempt[0], "")
        if not part or attempt in reached.training:
            continue
        try:
            manifest = store.manifest(*attempt)
        except FileNotFoundError:
            continue  # it never came to its end
        if part not in manifest.parts or part in manifest.dropped:
            continue
        if apply:
            reached.look()
            if attempt in reached.training:
                continue
            store.drop(*attempt, part)
        size = sum(file.size for file in manifest.parts[part].files)
        yield {"uri": join(store.home(*attempt), part), "bytes": size}


class _Reached:
    """What the kept runs of a store need; `look` adds what has come to be needed since."""

    def __init__(self, store: Store, keep: Keep) -> None:
        self.store, self.keep = store, keep
        self.runs, self.used = set[str](), set[Attempt]()
        self.training = set[Attempt]()
        """Attempts from which somebody may train on."""
        self._ended: dict[str, dict[str, Any]] = {}
        self.look()

    def look(self) -> None:
        """Look at all runs that are new or went on the last time; a run that has ended says nothing new."""
        names, marked = self.store.runs(), self.store.kept_runs()
        unread = [name for name in names if name not in self._ended]
        new = dict(zip(unread, self.store.read_runs(unread), strict=True))
        since = datetime.now(UTC) - timedelta(days=self.keep.days)
        met: set[tuple[str, str]] = set()
        for rank, name in enumerate(names):
            entry = self._ended.get(name) or new[name]
            lives = goes_on(entry)
            if not lives:
                self._ended[name] = entry
            if not (lives or rank < self.keep.newest or name in marked or _said(entry) >= since):
                continue
            self.runs.add(name)
            used = [*entry["stages"], *entry.get("planned", [])]
            self.used |= {_attempt(stage) for stage in used}
            self.training |= set(_trained_on(entry, lives, met))

    def has(self, attempt: Attempt) -> bool:
        """Whether an attempt is needed."""
        if attempt in self.used:
            return True
        lease = lease_of(self.store, *attempt)
        if lease is None:
            return False
        if lease.run in self.runs:
            return True
        if lease.host == this_host():
            return alive(lease.pid, lease.started)
        return in_progress(self.store, *attempt)


def _said(entry: dict[str, Any]) -> datetime:
    """When a run was last heard of."""
    return datetime.fromisoformat(entry["saved"])


def _attempt(stage: dict[str, Any]) -> Attempt:
    return (stage["stage"], stage["key"], stage["attempt"])


def _trained_on(entry: dict[str, Any], lives: bool, met: set[tuple[str, str]]) -> Iterator[Attempt]:
    """Attempts from which somebody may train on from a kept run.

    These are all of a run that goes on, those that no newer run of the preset has in their place (`met` by preset and
    name), and the last phase of a run that did not come to its end.
    """
    phases = [stage for stage in entry["stages"] if stage["stage"] in RESUMED and stage["digest"]]
    for stage in phases:
        place = (Path(entry["preset"]).stem, stage["name"])
        if place not in met or lives:
            yield _attempt(stage)
        met.add(place)
    if lives:
        yield from (_attempt(stage) for stage in entry.get("planned", []))
    elif entry["state"] != "completed" and phases:
        yield _attempt(phases[-1])
