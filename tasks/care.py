"""Care of a store: checking that artifacts are whole, and removing what no kept run reaches."""

from typing import Any

from data_curation.files import filesystem, join, listing, remove
from data_curation.settings import ConfigError
from tasks.claim import in_progress, lease_of
from tasks.lease import alive, this_host
from tasks.store import Store

Attempt = tuple[str, str, int]
"""Word, key and number."""


def verify_store(store: Store, deep: bool) -> list[str]:
    """What is wrong with the current attempt of every key; empty if everything is whole."""
    fs, path = filesystem(store.root)
    if not fs.exists(path):
        raise ConfigError(f"run.store: there is no store at {store.root}: correct --store")
    wrong: list[str] = []
    seen: set[tuple[str, str]] = set()
    for word, key, attempt in store.current():
        if (word, key) not in seen:
            seen.add((word, key))
            wrong += store.verify(word, key, attempt, deep)
    return wrong


def prune_store(store: Store, keep: int, apply: bool) -> list[dict[str, Any]]:
    """Attempts that no kept run used: removed if `apply`, only named otherwise.

    Kept are the newest `keep` runs, and all that still go on. What an attempt's own process, or another try of its run,
    may need is kept too, with a manifest or without.
    """
    if keep < 0:
        raise ConfigError(f"--keep is {keep}: give 0 or more")
    freed: list[dict[str, Any]] = []
    reached = _Reached(store, keep)
    for (word, key, attempt), size in sorted(_attempts(store).items()):
        if reached.has((word, key, attempt)):
            continue
        uri = store.home(word, key, attempt)
        if apply:
            reached = _Reached(store, keep)  # a run may have come to need it since
            if reached.has((word, key, attempt)):
                continue
            # The manifest goes first: half a removal must not look like a damaged artifact.
            remove(join(uri, "manifest.json"))
            remove(uri)
        freed.append({"uri": uri, "bytes": size})
    return freed


def unfinished(store: Store) -> list[Attempt]:
    """Attempts without a manifest: of killed stages, or of those that go on."""
    return sorted(set(_attempts(store)) - set(store.current()))


def living_runs(store: Store) -> list[str]:
    """Names of the runs that go on just now."""
    return [name for name in store.runs() if _goes_on(store.read_run(name))]


class _Reached:
    """What the kept runs of a store need just now."""

    def __init__(self, store: Store, keep: int) -> None:
        self.store = store
        self.runs, self.attempts = set[str](), set[Attempt]()
        for rank, name in enumerate(store.runs()):
            entry = store.read_run(name)
            if rank < keep or _goes_on(entry):
                self.runs.add(name)
                used = [*entry["stages"], *entry.get("planned", [])]
                self.attempts |= {(stage["stage"], stage["key"], stage["attempt"]) for stage in used}

    def has(self, attempt: Attempt) -> bool:
        """Whether an attempt is needed."""
        if attempt in self.attempts:
            return True
        lease = lease_of(self.store, *attempt)
        if lease is None:
            return False
        if lease.run in self.runs:
            return True
        if lease.host == this_host():
            return alive(lease.pid, lease.started)
        return in_progress(self.store, *attempt)


def _goes_on(entry: dict[str, Any]) -> bool:
    """Whether a run's process lives; of another host nobody here can tell, so what it says last is believed."""
    process = entry.get("process")
    if entry["state"] != "running" or process is None:
        return False
    return process["host"] != this_host() or alive(process["pid"], process["started"])


def _attempts(store: Store) -> dict[Attempt, int]:
    sizes: dict[Attempt, int] = {}
    for path, size in listing(store.root).items():
        parts = path.split("/")
        if len(parts) > 3 and parts[0] != "runs" and parts[2].isdigit():
            place = (parts[0], parts[1], int(parts[2]))
            sizes[place] = sizes.get(place, 0) + size
    return sizes
