"""The block lists of a store: what was taken down once stays out of every later run in it."""

from data_curation.files import create_exclusively, listing, read_bytes
from data_curation.sources.source import Source
from tasks.store import Store

FOLDER = "blocked"
"""Folder of the store with one list for each takedown; all of them hold for every later run in this store."""
SOURCE = "takedown"
"""Name of the source that hands them to `extract` and `dedup`."""


def write_list(store: Store, lines: list[str]) -> str:
    """Add a block list to the store; returns its URI. A list that is there already is not written twice."""
    data = "".join(f"{line}\n" for line in lines).encode()
    here = listing(store.uri(FOLDER))
    for path in here:
        if read_bytes(store.uri(FOLDER, path)) == data:
            return store.uri(FOLDER, path)
    number = len(here) + 1
    while not create_exclusively(store.uri(FOLDER, f"{number:05d}.txt"), data):
        number += 1
    return store.uri(FOLDER, f"{number:05d}.txt")


def standing(store: Store) -> Source | None:
    """The block lists of the store as a source; none where nothing was ever taken down."""
    return Source(name=SOURCE, kind="lines", path=store.uri(FOLDER)) if listing(store.uri(FOLDER)) else None
