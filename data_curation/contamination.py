"""Evaluation texts in a file of documents: the anchors that stand there, then the finds around rare ones."""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from data_curation.canaries import trials
from data_curation.decontaminate import DecontaminateConfig, FindTask
from data_curation.documents import parquet_file, read_rows, write_table
from data_curation.evaluation_index import Array, gram_hashes, load, read_array, save, text_hashes
from data_curation.evaluation_items import PART
from data_curation.files import filesystem
from data_curation.grams import placed_words
from data_curation.matching import TEXTS, Matcher
from data_curation.place import Piece, PieceWriter, Place

FINDS = pa.schema(
    [
        ("row", pa.int64()),
        ("start", pa.int64()),  # characters of the document's text
        ("end", pa.int64()),
        ("item", pa.int64()),
        ("kind", pa.string()),
        ("share", pa.float32()),  # of the evaluation text's words, standing there in order
    ]
)
_HALF, _ANCHOR = np.uint64(32), np.uint64(2**32 - 1)
_BATCH = 200  # documents hashed together: more would only take memory


def hit(config: DecontaminateConfig, uri: str, items: Piece, documents: int, rank: int, piece: PieceWriter) -> None:
    """Write pairs of document and anchor, each once; the note draws documents for canaries.

    Every document has a number that follows from its id: those with small ones are drawn, whatever file they are in.
    """
    index = load(piece.place, items, PART, config.anchor)
    below = 2**64 * 4 * config.canaries // max(documents, 1)  # four times as many as needed, on the average
    found = [np.zeros(0, dtype=np.uint64)]
    drawn: list[tuple[int, int]] = []
    rows, first = read_rows(uri, ["id", "text"]), 0
    while batch := list(islice(rows, _BATCH)):
        grams = gram_hashes([text_hashes(row["text"]) for row in batch], config.anchor)
        hits, anchors = index.lookup(grams.hashes)
        pairs = (grams.texts[hits] + first).astype(np.uint64) << _HALF | anchors.astype(np.uint64)
        found.append(np.unique(pairs))
        for number, row in enumerate(batch, first):
            draw = xxhash.xxh3_64_intdigest(f"{config.seed} {row['id']}".encode())
            if draw < below:
                drawn.append((draw, number))
        first += len(batch)
    save(piece, "work/hits", f"{rank:05d}.npy", np.concatenate(found))
    piece.piece.note["drawn"] = drawn


def anchor_documents(items: Piece, hits: list[Piece], piece: PieceWriter) -> None:
    """Write in how many documents each anchor stands."""
    documents = np.zeros(items.note["anchors"]["number"], dtype=np.int64)
    for rank, one in enumerate(hits):
        _, anchors = _pairs(one, rank, piece.place)
        documents += np.bincount(anchors, minlength=len(documents))
    save(piece, "work/anchors", "documents.npy", documents)


def canary_hosts(config: DecontaminateConfig, hits: list[Piece]) -> tuple[tuple[int, int], ...]:
    """File and row of the documents with the smallest numbers."""
    drawn = sorted((draw, rank, row) for rank, piece in enumerate(hits) for draw, row in piece.note["drawn"])
    return tuple((rank, row) for _, rank, row in drawn[: config.canaries])


def find(task: FindTask, rank: int, piece: PieceWriter) -> None:
    """Write every find in one file of documents.

    The note counts the documents of each text that stands whole, and says what was found of each canary.
    """
    config, matcher = task.config, matcher_of(task, piece.place)
    rows, anchors = _pairs(task.hits[rank], rank, piece.place)
    suspected = set(rows[matcher.starting[anchors]].tolist())
    hosts = {row: number for number, (file, row) in enumerate(task.hosts) if file == rank}
    documents = Counter[int]()
    canaries: list[tuple[str, str, list[int]]] = []

    def finds() -> Iterator[dict[str, Any]]:
        for row, text in _texts(task.files[rank], suspected.union(hosts)):
            if row in hosts:
                plan = task.items.note["canaries"]
                canaries.extend(trials(config, matcher, plan, text, hosts[row], len(task.hosts)))
            if not matcher.suspects(text):
                continue
            listed, places = placed_words(text)
            found = matcher.finds(listed)
            documents.update({one.item for one in found if one.kind in TEXTS})
            for one in found:
                span = {"start": places[one.start][0], "end": places[one.end - 1][1]}
                yield {"row": row, **span, "item": one.item, "kind": one.kind, "share": one.share}

    write_table(piece, "work/finds", f"{rank:05d}.parquet", finds(), FINDS)
    whole = {str(item): [number, matcher.limit(item)] for item, number in sorted(documents.items())}
    piece.piece.note |= {"whole": whole, "canaries": canaries}


def _pairs(piece: Piece, rank: int, place: Place) -> tuple[Array, Array]:
    """Rows of documents and anchors in them."""
    pairs = read_array(place.folder(piece, "work/hits"), f"{rank:05d}")
    return (pairs >> _HALF).astype(np.int64), (pairs & _ANCHOR).astype(np.int64)


def _texts(uri: str, rows: set[int]) -> Iterator[tuple[int, str]]:
    """Some rows of a file, and the text of each; the other texts are never made strings of."""
    fs, path = filesystem(uri)
    first = 0
    with fs.open(path, "rb") as stream:
        for batch in parquet_file(stream).iter_batches(1000, columns=["text"]) if rows else ():
            for row in range(first, first + len(batch)):
                if row in rows:
                    yield row, batch.column(0)[row - first].as_py()
            first += len(batch)


def matcher_of(task: FindTask, place: Place) -> Matcher:
    """The matcher of a stage's tasks, made once per process."""
    key = (place.home, *(file.sha256 for file in task.anchors.files["work/anchors"]))
    if key not in _matchers:
        _matchers.clear()
        index = load(place, task.items, PART, task.config.anchor)
        documents = read_array(place.folder(task.anchors, "work/anchors"), "documents")
        _matchers[key] = Matcher(task.config, index, documents)
    return _matchers[key]


_matchers: dict[tuple[str, ...], Matcher] = {}
