"""Evaluation texts, and the index that finds them in documents by runs of words."""

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import pyarrow as pa

from data_curation.artifact import Artifact
from data_curation.decontaminate import DecontaminateConfig
from data_curation.documents import read_rows, write_table
from data_curation.grams import words
from data_curation.place import PieceWriter
from data_curation.settings import InputError

ITEMS = pa.schema([("set", pa.string()), ("item", pa.string()), ("words", pa.string())])


class Item(NamedTuple):
    """One evaluation text: its set, its name in there, its compared words joined by spaces."""

    set: str
    item: str
    words: str


class Index:
    """Evaluation texts by the two words that a run of theirs starts with."""

    def __init__(self, items: list[Item], ngram: int) -> None:
        self.ngram = ngram
        self.long: dict[str, Item] = {}
        self.short: dict[tuple[str, str], list[tuple[int, Item]]] = {}
        self.starts: set[tuple[str, str]] = set()
        for item in items:
            listed = item.words.split()
            if len(listed) < ngram:
                self.short.setdefault((listed[0], listed[1]), []).append((len(listed), item))
            for start in range(len(listed) - ngram + 1):
                self.long.setdefault(" ".join(listed[start : start + ngram]), item)
                self.starts.add((listed[start], listed[start + 1]))

    def matches(self, listed: list[str]) -> Iterator[tuple[int, int, Item]]:
        """(first word, one past the last, item) of every run of words that an evaluation text shares."""
        for start, pair in enumerate(pairwise(listed)):
            if pair in self.starts and start + self.ngram <= len(listed):
                item = self.long.get(" ".join(listed[start : start + self.ngram]))
                if item:
                    yield start, start + self.ngram, item
            for length, item in self.short.get(pair, ()):
                if " ".join(listed[start : start + length]) == item.words:
                    yield start, start + length, item


def write_items(
    config: DecontaminateConfig, dialogues: Artifact, evaluations: list[Artifact], piece: PieceWriter
) -> None:
    """Write all evaluation texts long enough to look for; the note counts them, and the others, per set."""
    sets: dict[str, dict[str, int]] = {}
    kept: dict[Item, None] = {}
    for name, item, text in [*_from_dialogues(dialogues), *_from_sources(config, evaluations)]:
        numbers = sets.setdefault(name, {"texts": 0, "too_short": 0})
        listed = words(text)
        numbers["texts"] += 1
        if len(listed) < config.short_words:
            numbers["too_short"] += 1
        else:
            kept[Item(name, item, " ".join(listed))] = None
    write_table(piece, "work/items", "items.parquet", (item._asdict() for item in sorted(kept)), ITEMS)
    piece.piece.note["sets"] = sets


@cache
def index_of(uri: str, ngram: int) -> Index:
    """The index of the written items, made once per process."""
    return Index([Item(**row) for row in read_rows(uri)], ngram)


def _from_dialogues(dialogues: Artifact) -> Iterator[tuple[str, str, str]]:
    for part in ("dev", "test"):
        for uri in dialogues.uris(part, ".parquet"):
            for row in read_rows(uri):
                for number, message in enumerate(row["messages"]):
                    if message["role"] in ("user", "assistant"):
                        yield f"dialogues-{part}-{row['source']}", f"{row['id']}/{number}", message["content"]


def _from_sources(config: DecontaminateConfig, evaluations: list[Artifact]) -> Iterator[tuple[str, str, str]]:
    from data_curation.html_text import extract_html
    from data_curation.records import read
    from data_curation.sources.listing import uri_of

    for source, listed in zip(config.evaluations, evaluations, strict=True):
        for file in listed.part("files").files:
            for number, raw in enumerate(read(uri_of(source, listed, file.path), source.kind, file.path, 1 << 26)):
                if raw.drop:
                    raise InputError(f"{source.name}: {file.path}: evaluation text {number} is unusable: {raw.drop}")
                text = raw.text if raw.html is None else extract_html(raw.html, raw.url).text
                yield source.name, f"{file.path}#{number}", text or ""
