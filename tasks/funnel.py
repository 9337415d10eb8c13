"""The funnel of curation: what went into and came out of every step, in all, by source and by language."""

import json
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from data_curation.files import join, read_bytes
from tasks.artifact import Manifest

UNITS = ("documents", "bytes", "words")


def stage_funnel(manifest: Manifest, uri: str) -> dict[str, Any]:
    """One stage's funnel from its records; empty for a stage that keeps none.

    `steps`: [{"step", "in", "out", "reasons"}] in order, each of `in` and `out` {"documents", "bytes", "words"};
    `groups`: [{"source", "language", "in", "out"}]; `drops`: sampled documents with the passage that caused the drop.
    """
    if not any(file.path == "funnel.json" for file in manifest.records):
        return {}
    recorded = _record(uri, "funnel")
    rows: list[dict[str, Any]] = recorded["rows"]
    return {
        "steps": list(_steps(recorded["steps"], rows)),
        "groups": _groups(rows),
        "drops": _by_reason(_record(uri, "drops")),
        "documents_per_second": round(sum(row["documents"] for row in rows) / max(manifest.seconds, 1e-9), 1),
    }


FLOW = ("documents in", "out", "MB in", "out", "words in", "out")
"""Headings of what `flow` gives."""


def flow(row: dict[str, Any]) -> list[str]:
    """Documents, megabytes and words of a step or group as text, each in and out."""
    return [
        f"{row[end]['bytes'] / 1e6:,.1f}" if unit == "bytes" else f"{row[end][unit]:,}"
        for unit in UNITS
        for end in ("in", "out")
    ]


def _steps(names: list[str], rows: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """What each step saw is what it and all later ones dropped, and what stayed."""
    order = {name: index for index, name in enumerate(names)}
    for index, name in enumerate(names):
        seen = [row for row in rows if not row["reason"] or order[row["step"]] >= index]
        gone = [row for row in seen if row["reason"] and order[row["step"]] == index]
        left = [row for row in seen if not row["reason"] or order[row["step"]] > index]
        reasons: dict[str, int] = defaultdict(int)
        for row in gone:
            reasons[row["reason"]] += row["documents"]
        yield {
            "step": name,
            "in": _sum(seen),
            # Rewriting shows where it is done: at the end of the stage.
            "out": _sum(left, "_left" if index == len(names) - 1 else ""),
            "reasons": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        }


def _groups(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = sorted({(row["source"], row["language"]) for row in rows})
    groups: list[dict[str, Any]] = []
    for source, language in names:
        some = [row for row in rows if (row["source"], row["language"]) == (source, language)]
        kept = [row for row in some if not row["reason"]]
        groups.append({"source": source, "language": language, "in": _sum(some), "out": _sum(kept, "_left")})
    return sorted(groups, key=lambda row: -row["in"]["documents"])


def _by_reason(drops: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """[{"step", "reason", "documents": [{"id", "url", "passage", ...}]}]."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in drops:
        found[row["step"], row["reason"]].append(row)
    return [{"step": step, "reason": reason, "documents": some} for (step, reason), some in found.items()]


def _sum(rows: Iterable[dict[str, Any]], suffix: str = "") -> dict[str, int]:
    sums: dict[str, int] = dict.fromkeys(UNITS, 0)
    for row in rows:
        for unit in UNITS:
            sums[unit] += row[unit if unit == "documents" else unit + suffix]
    return sums


def _record(uri: str, name: str) -> Any:
    return json.loads(read_bytes(join(uri, "records", f"{name}.json")))
