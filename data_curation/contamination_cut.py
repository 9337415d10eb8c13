"""A file of documents without the evaluation texts found in it, the decisions, and the audit of each find."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_curation.decisions import Decisions, Subject, sizes
from data_curation.decontaminate import CutTask, DecontaminateConfig
from data_curation.documents import DOCUMENTS, read_rows, write_table
from data_curation.evaluation_index import load
from data_curation.evaluation_items import PART
from data_curation.matching import COMMON, TEXTS
from data_curation.place import PieceWriter

AUDIT = pa.schema(
    [
        ("id", pa.string()),
        ("url", pa.string()),
        ("set", pa.string()),
        ("item", pa.string()),
        ("action", pa.string()),  # cut, drop, or common (a phrase that stays)
        ("kind", pa.string()),  # whole, near, run, common
        ("similarity", pa.float32()),  # share of the evaluation text's words that stand in order in the span
        ("text", pa.string()),  # the evaluation text, its beginning
        ("span", pa.string()),
        ("before", pa.string()),
        ("after", pa.string()),
    ]
)
TOP = 10
"""Finds of a set that are shown in full."""
_PARAGRAPH = re.compile(r"\n{2,}")
_AROUND, _TEXT = 80, 400


def cut(task: CutTask, rank: int, piece: PieceWriter) -> None:
    """Write one file of documents without the finds, their decisions and the audit of each find."""
    name, decisions = f"{rank:05d}.parquet", Decisions("decontaminate")
    index = load(piece.place, task.items, PART, task.config.anchor)
    finds: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for one in pq.read_table(piece.place.folder(task.found[rank], "work/finds") / name).to_pylist():
        item = index.text(one["item"])
        common = one["kind"] == COMMON or (one["kind"] in TEXTS and one["item"] in task.common)
        for owner, called in zip(item["sets"], item["names"], strict=True):
            finds[one["row"]].append(one | {"set": owner, "item": called, "text": item["text"], "common": common})
    audit: list[dict[str, Any]] = []

    def survivors() -> Iterator[dict[str, Any]]:
        for number, row in enumerate(read_rows(task.files[rank])):
            kept = _decide(task.config, row, finds.get(number, []), decisions, audit)
            if kept:
                yield {**row, "text": kept}

    write_table(piece, "documents", name, survivors(), DOCUMENTS)
    decisions.write(piece, name)
    write_table(piece, "audit", name, audit, AUDIT)
    _note(piece, audit, task.config.near)
    piece.piece.note["bytes_cut"] = sum(
        json.loads(row["scores"])["bytes_cut"] for row in decisions.rows if not row["reason"] and row["scores"]
    )


def _decide(
    config: DecontaminateConfig,
    row: dict[str, Any],
    finds: list[dict[str, Any]],
    decisions: Decisions,
    audit: list[dict[str, Any]],
) -> str:
    """The document's text without the finds; empty where it is dropped."""
    text, about = row["text"], Subject.of(row)
    if not finds:
        decisions.keep(about)
        return text
    spans = _merged([one for one in finds if not one["common"]])
    kept = _without(text, [(span["start"], span["end"]) for span in spans])
    drop = bool(spans) and (config.action == "drop" or len(kept) < config.min_left * len(text))
    phrases = _merged([one for one in finds if one["common"]])
    for action, some in (("drop" if drop else "cut", spans), ("common", phrases)):
        audit += [_audit_row(row, one, action) for one in some]
    if not spans:
        decisions.keep(about)
        return text
    scores = {"sets": sorted({span["set"] for span in spans}), "similarity": max(span["share"] for span in spans)}
    if drop:
        decisions.drop(about, "decontaminate", "evaluation-text", text[spans[0]["start"] : spans[0]["end"]], **scores)
        return ""
    left = sizes(kept)
    decisions.keep(about, left, **scores, bytes_cut=about.bytes - left[0])
    return kept


def _merged(finds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Finds of one evaluation set that overlap, as one; the most similar item names it, of several the longest."""
    merged: list[dict[str, Any]] = []
    for one in sorted(finds, key=lambda one: (one["set"], one["start"], one["end"], one["item"])):
        last = merged[-1] if merged else None
        if last and last["set"] == one["set"] and one["start"] <= last["end"]:
            end = max(last["end"], one["end"])
            if (one["share"], len(one["text"])) > (last["share"], len(last["text"])):
                last |= {name: one[name] for name in ("item", "text", "share", "kind")}
            last["end"] = end
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
        "kind": one["kind"],
        "similarity": one["share"],
        "text": one["text"][:_TEXT],
        "span": text[start:end],
        "before": text[max(0, start - _AROUND) : start],
        "after": text[end : end + _AROUND],
    }


def top(finds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The finds to show: the longest spans of the most similar."""
    return sorted(
        finds, key=lambda one: (-one["similarity"], -len(one["span"]), one["id"], one["item"], one["before"])
    )[:TOP]


def _note(piece: PieceWriter, audit: list[dict[str, Any]], near: float) -> None:
    finds = [row for row in audit if row["action"] != "common"]
    by_set: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in finds:
        by_set[row["set"]].append(row)
    piece.piece.note["sets"] = {
        name: {
            "finds": len(some),
            "similar": sum(row["similarity"] >= near for row in some),
            "documents": len({row["id"] for row in some}),
            "kinds": dict(Counter(row["kind"] for row in some)),
            "top": [{**row, "span": row["span"][:_TEXT]} for row in top(some)],
        }
        for name, some in sorted(by_set.items())
    }
    piece.piece.note["cut"] = len({row["id"] for row in finds if row["action"] == "cut"})
    title = "found in {url}: {set} {item}"
    piece.piece.note["samples"] = [{"title": title.format(**row), "text": row["span"][:300]} for row in finds[:2]]
