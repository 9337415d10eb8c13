"""What each curation stage decided about each document: rows for the table, sums for the funnel."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from data_curation.counts import Counts
from data_curation.documents import DECISIONS, write_table
from data_curation.place import PieceWriter, Place
from data_curation.settings import InputError


@dataclass
class Decisions:
    """The decisions of one task, one for every document it saw."""

    stage: str
    rows: list[dict[str, Any]] = field(default_factory=list)

    def keep(self, id: str, url: str, size: int, **scores: Any) -> None:
        """The document stays."""
        self.drop(id, url, size, self.stage, "", **scores)

    def drop(self, id: str, url: str, size: int, step: str, reason: str, **scores: Any) -> None:
        """The document goes: which step, and why. `size` is in bytes."""
        text = json.dumps(scores, sort_keys=True, ensure_ascii=False) if scores else ""
        self.rows.append({"id": id, "url": url, "step": step, "reason": reason, "bytes": size, "scores": text})

    def write(self, piece: PieceWriter, path: str) -> None:
        """Write the rows into the piece's part `decisions`, and their sums into its counts."""
        write_table(piece, "decisions", path, self.rows, DECISIONS)
        piece.piece.counts.add(self.counts())

    def counts(self) -> Counts:
        """Documents and bytes that came in, stayed, and went for each reason."""
        kept = [row["bytes"] for row in self.rows if not row["reason"]]
        number, size = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        for row in self.rows:
            if row["reason"]:
                number[row["step"], row["reason"]] += 1
                size[row["step"], row["reason"]] += row["bytes"]
        return Counts(
            taken={"documents": len(self.rows), "bytes": sum(row["bytes"] for row in self.rows)},
            made={"documents": len(kept), "bytes": sum(kept)},
            funnel=[
                {"step": step, "reason": reason, "documents": number[step, reason], "bytes": size[step, reason]}
                for step, reason in sorted(number)
            ],
        )


def finish(place: Place, counts: Counts, steps: list[str]) -> Counts:
    """Put the funnel in the order of the steps, plot it, and refuse an empty output with the reasons for it."""
    counts.funnel.sort(key=lambda row: (steps.index(row["step"]), -row["documents"], row["reason"]))
    if not counts.made.get("documents"):
        reasons = ", ".join(f"{row['step']} {row['reason']} {row['documents']}" for row in counts.funnel)
        seen = counts.taken.get("documents", 0)
        raise InputError(f"{place.name}: none of {seen} documents is left; dropped by {reasons or 'nothing'}")
    bars = {f"{row['step']}: {row['reason']}": row["documents"] for row in counts.funnel}
    bar_plot(place, "drops", "Documents dropped", "reason", bars)
    return counts


def bar_plot(place: Place, name: str, title: str, x: str, bars: dict[str, int]) -> None:
    """Plot one bar per name, the longest first."""
    ordered = sorted(bars.items(), key=lambda item: (-item[1], item[0]))
    series = {label: [(float(index), float(value))] for index, (label, value) in enumerate(ordered)}
    if series:
        place.plot(name, title, x, "documents", series, kind="bar")
