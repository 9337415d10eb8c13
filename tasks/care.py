"""Care of a store: checking that artifacts are whole, and removing what no kept run reaches."""

from typing import Any

from data_curation.files import join, listing, remove
from tasks.store import Store


def verify_store(store: Store, deep: bool) -> list[str]:
    """What is wrong with the current attempt of every key; empty if everything is whole."""
    wrong: list[str] = []
    seen: set[tuple[str, str]] = set()
    for word, key, attempt in store.current():
        if (word, key) not in seen:
            seen.add((word, key))
            wrong += store.verify(word, key, attempt, deep)
    return wrong


def prune_store(store: Store, keep: int, apply: bool) -> list[dict[str, Any]]:
    """Attempts that none of the newest `keep` runs used: removed if `apply`, only named otherwise.

    An attempt without a manifest is kept while its holder lives: it is work in progress.
    """
    names = store.runs()
    reached = {
        (entry["stage"], entry["key"], entry["attempt"])
        for name in names[:keep]
        for entry in store.read_run(name)["stages"]
    }
    freed: list[dict[str, Any]] = []
    for (word, key, attempt), size in sorted(_attempts(store).items()):
        if (word, key, attempt) in reached or store.in_progress(word, key, attempt):
            continue
        uri = store.uri(word, key, str(attempt))
        freed.append({"uri": uri, "bytes": size})
        if apply:
            # The manifest goes first: half a removal must not look like a damaged artifact.
            remove(join(uri, "manifest.json"))
            remove(uri)
    return freed


def _attempts(store: Store) -> dict[tuple[str, str, int], int]:
    sizes: dict[tuple[str, str, int], int] = {}
    for path, size in listing(store.root).items():
        parts = path.split("/")
        if len(parts) > 3 and parts[0] != "runs" and parts[2].isdigit():
            place = (parts[0], parts[1], int(parts[2]))
            sizes[place] = sizes.get(place, 0) + size
    return sizes
