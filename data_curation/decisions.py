"""What each curation stage decided about each document: rows for the table, sums and samples for the funnel."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from data_curation.counts import Counts
from data_curation.documents import DECISIONS, write_table
from data_curation.place import Piece, PieceWriter, Place
from data_curation.settings import InputError

SAMPLES = 10
"""Dropped documents shown for each reason: those with the smallest ids, so that no order of work changes them."""
_GROUP = ("source", "language", "step", "reason")
PASSAGE = 300
"""Characters of a passage that are kept."""
_UNITS = ("documents", "bytes", "words", "bytes_left", "words_left")


class Subject(NamedTuple):
    """The document that a decision is about, as it came into the stage."""

    id: str
    url: str
    source: str
    language: str
    bytes: int
    """UTF-8 bytes of the text; of the raw record where there is no text yet."""
    words: int
    """Runs of characters between spaces; 0 where there is no text yet."""

    @staticmethod
    def of(row: dict[str, Any]) -> "Subject":
        """The subject of one row of documents."""
        text = row["text"]
        return Subject(row["id"], row["url"], row["source"], row["language"], *sizes(text))


@dataclass
class Decisions:
    """The decisions of one task, one for every document it saw."""

    stage: str
    rows: list[dict[str, Any]] = field(default_factory=list)

    def keep(self, about: Subject, left: tuple[int, int] | None = None, **scores: Any) -> None:
        """The document stays; `left` is (bytes, words) of what goes out, where that is not what came in."""
        self._add(about, "", "", "", left or (about.bytes, about.words), scores)

    def drop(self, about: Subject, step: str, reason: str, passage: str = "", **scores: Any) -> None:
        """The document goes: which step, why, and the text that caused it."""
        self._add(about, step, reason, passage, (0, 0), scores)

    def _add(
        self, about: Subject, step: str, reason: str, passage: str, left: tuple[int, int], scores: dict[str, Any]
    ) -> None:
        self.rows.append(
            about._asdict()
            | {"step": step or self.stage, "reason": reason, "passage": passage[:PASSAGE]}
            | {"bytes_left": left[0], "words_left": left[1]}
            | {"scores": json.dumps(scores, sort_keys=True, ensure_ascii=False) if scores else ""}
        )

    def write(self, piece: PieceWriter, path: str) -> None:
        """Write the rows into the piece's part `decisions`; their sums and samples into its counts and note."""
        write_table(piece, "decisions", path, self.rows, DECISIONS)
        piece.piece.counts.add(self.counts())
        piece.piece.note["funnel"] = _sums(self.rows, _GROUP)
        piece.piece.note["drops"] = _samples([row for row in self.rows if row["reason"]])

    def counts(self) -> Counts:
        """Documents, bytes and words that came in, stayed, and went for each reason."""
        kept = [row for row in self.rows if not row["reason"]]
        return Counts(
            taken=_units(len(self.rows), self.rows, ""),
            made=_units(len(kept), kept, "_left"),
            funnel=[
                {name: row[name] for name in ("step", "reason", "documents", "bytes", "words")}
                for row in _sums((row for row in self.rows if row["reason"]), ("step", "reason"))
            ],
        )


def finish(place: Place, counts: Counts, steps: list[str], pieces: Sequence[Piece]) -> Counts:
    """Record the funnel in the order of the steps, plot it, and refuse an empty output with the reasons for it.

    Records `funnel` (sums per source, language, step and reason; an empty reason is what stayed) and `drops`
    (`SAMPLES` dropped documents for each reason). `steps` are in the order in which documents meet them.
    """
    counts.funnel.sort(key=lambda row: (steps.index(row["step"]), -row["documents"], row["reason"]))
    place.record(
        "funnel", {"steps": steps, "rows": _sums((row for one in pieces for row in one.note["funnel"]), _GROUP)}
    )
    place.record("drops", _samples([row for piece in pieces for row in piece.note["drops"]]))
    if not counts.made.get("documents"):
        reasons = ", ".join(f"{row['step']} {row['reason']} {row['documents']}" for row in counts.funnel)
        seen = counts.taken.get("documents", 0)
        raise InputError(f"none of {seen} documents is left; dropped by {reasons or 'nothing'}")
    bars = {f"{row['step']}: {row['reason']}": row["documents"] for row in counts.funnel}
    bar_plot(place, "drops", "Documents dropped", "reason", bars)
    return counts


def sizes(text: str) -> tuple[int, int]:
    """UTF-8 bytes and words of a text."""
    return len(text.encode()), len(text.split())


def _sums(rows: Iterable[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Sums of documents, bytes and words over rows that agree in the named columns, sorted by them."""
    sums: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0] * len(_UNITS))
    for row in rows:
        kept = sums[tuple(row[name] for name in names)]
        for index, unit in enumerate(_UNITS):
            kept[index] += row.get(unit, 1)  # a row of one document does not say so
    return [dict(zip(names, key, strict=True)) | dict(zip(_UNITS, sums[key], strict=True)) for key in sorted(sums)]


def bar_plot(place: Place, name: str, title: str, x: str, bars: dict[str, int]) -> None:
    """Plot one bar per name, the longest first."""
    ordered = sorted(bars.items(), key=lambda item: (-item[1], item[0]))
    series = {label: [(float(index), float(value))] for index, (label, value) in enumerate(ordered)}
    if series:
        place.plot(name, title, x, "documents", series, kind="bar")


def _units(documents: int, rows: list[dict[str, Any]], suffix: str) -> dict[str, int]:
    return {"documents": documents, **{unit: sum(row[unit + suffix] for row in rows) for unit in ("bytes", "words")}}


def _samples(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The dropped documents to show, `SAMPLES` for each reason."""
    chosen: list[dict[str, Any]] = []
    seen: dict[tuple[str, str], int] = defaultdict(int)
    for row in sorted(rows, key=lambda row: (row["step"], row["reason"], row["id"])):
        seen[row["step"], row["reason"]] += 1
        if seen[row["step"], row["reason"]] <= SAMPLES:
            chosen.append(
                {name: row[name] for name in ("step", "reason", "id", "url", "source", "language", "passage")}
            )
    return chosen
