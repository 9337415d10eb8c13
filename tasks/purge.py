"""Removes from a store what still holds taken-down text, and says what is left elsewhere."""

import html
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from data_curation.files import join, listing, read_bytes, remove, write_bytes
from data_curation.place import Place
from tasks.care import unfinished
from tasks.claim import in_progress
from tasks.lineage import Attempt, Lineage, label
from tasks.store import Store
from tasks.takedown import Taken, affected
from tasks.whereabouts import Names

GRAM = 8
"""Words that must stand in one order to count as a piece of a text."""
GONE = "(taken down)"
_WORD = re.compile(r"\w+")


class Pieces:
    """Runs of `GRAM` words of texts, by which a piece of them is known inside another text."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.grams: set[tuple[str, ...]] = set()
        for text in texts:
            self.grams |= set(_grams(text))

    def met(self, text: str) -> bool:
        """Whether a piece of the texts stands in this one."""
        return any(gram in self.grams for gram in _grams(text))

    def without(self, data: Any) -> Any:
        """Plain JSON data whose strings that hold a piece are replaced."""
        if isinstance(data, str):
            return GONE if self.met(data) else data
        if isinstance(data, list):
            return [self.without(one) for one in data]
        return {name: self.without(one) for name, one in data.items()} if isinstance(data, dict) else data


def purge(lineage: Lineage, taken: Taken) -> dict[str, list[str]]:
    """Remove every artifact that holds the documents, cut them out of runs' reports: {"removed", "rewritten", "left"}.

    Of `extract` only the pieces that hold one go; the next run adopts all others and makes these again without it.
    """
    found: dict[str, list[str]] = {"removed": [], "rewritten": [], "left": []}
    ids, store = set(taken.documents), lineage.store
    for attempt, what in affected(lineage, ids).items():
        uri = lineage.uri(attempt)
        # The manifest goes first: half a removal must not look like a damaged artifact.
        remove(join(uri, "manifest.json"))
        if attempt[0] == "extract":
            number = _drop_pieces(uri, ids)
            remove(join(uri, "records"))
            found["rewritten"].append(f"{label(attempt)}: {number} pieces of it, the next run makes them again")
        else:
            remove(uri)
            found["removed"].append(f"{label(attempt)}: {what}")
    for attempt in unfinished(store):
        _purge_unfinished(lineage, attempt, ids, found)
    _purge_runs(store, Pieces(text for some in taken.texts.values() for text in some), found)
    return found


def _purge_unfinished(lineage: Lineage, attempt: Attempt, ids: set[str], found: dict[str, list[str]]) -> None:
    """What a killed stage left: nobody knows what it holds, unless it is documents."""
    uri = lineage.uri(attempt)
    if in_progress(lineage.store, *attempt):
        found["left"].append(f"{label(attempt)}: a run makes it just now: repeat the takedown afterwards")
    elif attempt[0] == "extract":
        if number := _drop_pieces(uri, ids):
            found["rewritten"].append(f"{label(attempt)}: {number} pieces of an unfinished attempt")
    elif attempt[0] != "dialogues":
        remove(uri)
        found["removed"].append(f"{label(attempt)}: an unfinished attempt")


def _drop_pieces(uri: str, ids: set[str]) -> int:
    """Remove the pieces of an attempt whose documents or decisions name one of the ids, and the log."""
    place, number, names = Place(uri, Path()), 0, Names(ids)
    for piece in place.pieces():
        files = [join(uri, part, file.path) for part, some in piece.files.items() for file in some]
        if any(True for file in files if file.endswith(".parquet") for _ in names.rows(file, ("id",))):
            place.drop(piece)
            number += 1
    remove(join(uri, "work", "log.txt"))
    return number


def _purge_runs(store: Store, pieces: Pieces, found: dict[str, list[str]]) -> None:
    """Reports quote what was dropped: strings of JSON files are replaced, a page is removed."""
    for path in listing(store.uri("runs")):
        uri = store.uri("runs", path)
        if path.endswith(".json"):
            data = json.loads(read_bytes(uri))
            without = pieces.without(data)
            if without != data:
                write_bytes(uri, json.dumps(without, indent=1).encode())
                found["rewritten"].append(f"runs/{path}")
        elif path.endswith(".html") and pieces.met(_plain(read_bytes(uri))):
            remove(uri)
            found["removed"].append(f"runs/{path}: quotes it")


def quoting(taken: Taken, paths: Iterable[str]) -> Iterator[str]:
    """Which of these files (URIs of text, pages or a database) hold a piece of the texts."""
    pieces = Pieces(text for some in taken.texts.values() for text in some)
    for path in paths:
        if pieces.met(_plain(read_bytes(path))):
            yield path


def _plain(data: bytes) -> str:
    """A page's text without its tags; other bytes as they are."""
    return html.unescape(re.sub(r"<[^>]*>", " ", data.decode("utf-8", "replace")))


def _grams(text: str) -> Iterator[tuple[str, ...]]:
    words = _WORD.findall(text.casefold())
    width = min(GRAM, max(len(words), 1))
    for start in range(len(words) - width + 1):
        yield tuple(words[start : start + width])
