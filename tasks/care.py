"""Care of a store: whether artifacts are whole, what goes on just now, what was left unfinished."""

from typing import Any

from data_curation.files import filesystem, listing
from data_curation.settings import ConfigError
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


def unfinished(store: Store) -> list[Attempt]:
    """Attempts without a manifest: of killed stages, or of those that go on."""
    return sorted(set(attempts_of(store)) - set(store.current()))


def living_runs(store: Store) -> list[str]:
    """Names of the runs that go on just now."""
    return [entry["run"] for entry in store.read_runs(store.runs()) if goes_on(entry)]


def goes_on(entry: dict[str, Any]) -> bool:
    """Whether a run's process lives; of another host nobody here can tell, so what it says last is believed."""
    process = entry.get("process")
    if entry["state"] != "running" or process is None:
        return False
    return process["host"] != this_host() or alive(process["pid"], process["started"])


def attempts_of(store: Store) -> dict[Attempt, int]:
    """Every attempt of a store, whole or not, and its bytes."""
    sizes: dict[Attempt, int] = {}
    for path, size in listing(store.root).items():
        parts = path.split("/")
        if len(parts) > 3 and parts[0] != "runs" and parts[2].isdigit():
            place = (parts[0], parts[1], int(parts[2]))
            sizes[place] = sizes.get(place, 0) + size
    return sizes
