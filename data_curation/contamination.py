"""Finds of evaluation texts in a file of documents, and the documents without them."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_curation.decisions import Decisions, Subject, sizes
from data_curation.decontaminate import DecontaminateConfig
from data_curation.documents import DOCUMENTS, read_rows, write_table
from data_curation.evaluation_items import index_of
from data_curation.grams import placed_words
from data_curation.place import Piece, PieceWriter

FINDS = pa.schema(
    [
        ("row", pa.int64()),
        ("start", pa.int64()),  # characters of the document's text
        ("end", pa.int64()),
        ("set", pa.string()),
        ("item", pa.string()),
        ("short", pa.string()),  # the whole evaluation text where it is shorter than an n-gram, else empty
    ]
)
AUDIT = pa.schema(
    [
        ("id", pa.string()),
        ("url", pa.string()),
        ("set", pa.string()),
        ("item", pa.string()),
        ("action", pa.string()),  # cut, drop, or common (a phrase that stays)
        ("span", pa.string()),
        ("before", pa.string()),
        ("after", pa.string()),
    ]
)
_PARAGRAPH = re.compile(r"\n{2,}")
_AROUND = 80


def find(config: DecontaminateConfig, uri: str, items: Piece, rank: int, piece: PieceWriter) -> None:
    """Write every find in one file of documents; the note counts the documents of each short text."""
    folder = piece.place.folder(items, "work/items")
    index = index_of(str(folder / "items.parquet"), config.ngram)
    short = Counter[str]()

    def finds() -> Iterator[dict[str, Any]]:
        for row, document in enumerate(read_rows(uri, ["text"])):
            listed, places = placed_words(document["text"])
            seen: set[str] = set()
            for start, end, item in index.matches(listed):
                phrase = item.words if end - start < config.ngram else ""
                seen.add(phrase)
                span = {"start": places[start][0], "end": places[end - 1][1]}
                yield {"row": row, **span, "set": item.set, "item": item.item, "short": phrase}
            short.update(seen - {""})

    write_table(piece, "work/finds", f"{rank:05d}.parquet", finds(), FINDS)
    piece.piece.note["short"] = dict(short)


def cut(
    config: DecontaminateConfig, uri: str, found: Piece, common: frozenset[str], rank: int, piece: PieceWriter
) -> None:
    """Write one file of documents without the finds, their decisions and the audit of each find."""
    name, decisions = f"{rank:05d}.parquet", Decisions("decontaminate")
    finds: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for one in pq.read_table(piece.place.folder(found, "work/finds") / name).to_pylist():
        finds[one["row"]].append(one)
    audit: list[dict[str, Any]] = []

    def survivors() -> Iterator[dict[str, Any]]:
        for number, row in enumerate(read_rows(uri)):
            kept = _decide(config, row, finds.get(number, []), common, decisions, audit)
            if kept:
                yield {**row, "text": kept}

    write_table(piece, "documents", name, survivors(), DOCUMENTS)
    decisions.write(piece, name)
    write_table(piece, "audit", name, audit, AUDIT)
    _note(piece, audit)
    piece.piece.note["bytes_cut"] = sum(
        json.loads(row["scores"])["bytes_cut"] for row in decisions.rows if not row["reason"] and row["scores"]
    )


def _decide(
    config: DecontaminateConfig,
    row: dict[str, Any],
    finds: list[dict[str, Any]],
    common: frozenset[str],
    decisions: Decisions,
    audit: list[dict[str, Any]],
) -> str:
    """The document's text without the finds; empty where it is dropped."""
    text, about = row["text"], Subject.of(row)
    spans = _merged([one for one in finds if one["short"] not in common])
    kept = _without(text, [(span["start"], span["end"]) for span in spans])
    drop = bool(spans) and (config.action == "drop" or len(kept) < config.min_left * len(text))
    phrases = _merged([one for one in finds if one["short"] in common])
    for action, some in (("drop" if drop else "cut", spans), ("common", phrases)):
        audit += [_audit_row(row, one, action) for one in some]
    if not spans:
        decisions.keep(about)
        return text
    sets = sorted({span["set"] for span in spans})
    if drop:
        decisions.drop(about, "decontaminate", "evaluation-text", text[spans[0]["start"] : spans[0]["end"]], sets=sets)
        return ""
    left = sizes(kept)
    decisions.keep(about, left, sets=sets, bytes_cut=about.bytes - left[0])
    return kept


def _merged(finds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Finds of one evaluation set that overlap, as one; the first names the item."""
    merged: list[dict[str, Any]] = []
    for one in sorted(finds, key=lambda one: (one["set"], one["start"], one["end"])):
        last = merged[-1] if merged else None
        if last and last["set"] == one["set"] and one["start"] <= last["end"]:
            last["end"] = max(last["end"], one["end"])
        else:
            merged.append(dict(one))
    return merged


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    """The paragraphs that no span touches."""
    kept: list[str] = []
    start = 0
    for end, following in [*(match.span() for match in _PARAGRAPH.finditer(text)), (len(text), len(text))]:
        if not any(first < end and last > start for first, last in spans):
            kept.append(text[start:end])
        start = following
    return "\n\n".join(kept).strip()


def _audit_row(row: dict[str, Any], one: dict[str, Any], action: str) -> dict[str, Any]:
    text, start, end = row["text"], one["start"], one["end"]
    return {
        "id": row["id"],
        "url": row["url"],
        "set": one["set"],
        "item": one["item"],
        "action": action,
        "span": text[start:end],
        "before": text[max(0, start - _AROUND) : start],
        "after": text[end : end + _AROUND],
    }


def _note(piece: PieceWriter, audit: list[dict[str, Any]]) -> None:
    finds = [row for row in audit if row["action"] != "common"]
    note = piece.piece.note
    note["finds"] = dict(Counter(row["set"] for row in finds))
    note["documents"] = dict(Counter(name for name, _ in {(row["set"], row["id"]) for row in finds}))
    note["cut"] = len({row["id"] for row in finds if row["action"] == "cut"})
    title = "found in {url}: {set} {item}"
    note["samples"] = [{"title": title.format(**row), "text": row["span"][:300]} for row in finds[:2]]
