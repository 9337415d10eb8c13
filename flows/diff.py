"""`tokenmill diff`: two runs side by side - configuration, data, metrics, gates."""

import argparse
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flows.terminal import print_table
from training.verdict import FAILED, UNMEASURED, outcome

if TYPE_CHECKING:
    from tasks.artifact import Manifest
    from tasks.store import Store

Pair = dict[str, Any]
"""{"name", ..., "left", "right"}; a side that has no such thing is None."""


def diff(store: "Store", asked: argparse.Namespace) -> int:
    """Print what differs between two runs; equal configuration and equal figures are left out unless all are asked."""
    answer = compare(store, asked.left, asked.right)
    if asked.json:
        print(json.dumps(answer))
    else:
        _print(answer, asked.all)
    return 0


def compare(store: "Store", left: str, right: str) -> dict[str, Any]:
    """`config`, `data`, `metrics` and `gates` of two runs as pairs; of the configuration only what differs."""
    runs = [store.read_run(name) for name in (left, right)]
    made = [_manifests(store, run) for run in runs]
    names = list(dict.fromkeys(name for side in made for name in side))
    stages = [(name, [side.get(name) for side in made]) for name in names]
    return {
        "runs": [{name: run[name] for name in ("run", "preset", "state", "commit", "started")} for run in runs],
        "config": _changed(*(dict(_leaves("", run["config"])) for run in runs)),
        "data": [_data(name, pair) for name, pair in stages],
        "metrics": [one for name, pair in stages for one in _pairs(name, "metric", *map(_metrics, pair))],
        "gates": [one for name, pair in stages for one in _pairs(name, "gate", *map(_gates, pair))],
    }


def _manifests(store: "Store", run: Mapping[str, Any]) -> dict[str, "Manifest"]:
    """Stage name -> manifest, of all that the run finished and that is still there."""
    found: dict[str, Manifest] = {}
    for stage in run["stages"]:
        if stage["digest"]:
            try:
                found[stage["name"]] = store.manifest(stage["stage"], stage["key"], stage["attempt"])
            except FileNotFoundError:
                continue  # pruned since
    return found


def _data(name: str, pair: "list[Manifest | None]") -> Pair:
    """Digest and counts of a stage on both sides."""
    sides = [
        {"digest": one.digest, "in": one.counts.taken, "out": one.counts.made, "dropped": _dropped(one)}
        if one is not None
        else None
        for one in pair
    ]
    same = all(sides) and sides[0] is not None and sides[1] is not None and sides[0]["digest"] == sides[1]["digest"]
    return {"stage": name, "same": same, "left": sides[0], "right": sides[1]}


def _dropped(manifest: "Manifest") -> dict[str, int]:
    """Documents by step and reason."""
    return {f"{row['step']}: {row['reason']}": row["documents"] for row in manifest.counts.funnel}


def _metrics(manifest: "Manifest | None") -> dict[str, Any]:
    return dict(manifest.counts.metrics) if manifest else {}


def _gates(manifest: "Manifest | None") -> dict[str, Any]:
    return {gate["gate"]: gate for gate in manifest.counts.gates} if manifest else {}


def _pairs(stage: str, kind: str, left: dict[str, Any], right: dict[str, Any]) -> list[Pair]:
    names = dict.fromkeys([*left, *right])
    return [{"stage": stage, kind: name, "left": left.get(name), "right": right.get(name)} for name in names]


def _changed(left: dict[str, Any], right: dict[str, Any]) -> list[Pair]:
    names = [name for name in dict.fromkeys([*left, *right]) if left.get(name) != right.get(name)]
    return [{"setting": name, "left": left.get(name), "right": right.get(name)} for name in names]


def _leaves(path: str, value: Any) -> list[tuple[str, Any]]:
    """Every setting by its path; lists of plain values are one setting."""
    if isinstance(value, dict) and value:
        return [leaf for name, one in value.items() for leaf in _leaves(f"{path}.{name}".lstrip("."), one)]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [leaf for number, one in enumerate(value) for leaf in _leaves(f"{path}.{number}", one)]
    return [(path, value)]


def _print(answer: dict[str, Any], everything: bool) -> None:
    left, right = (run["run"] for run in answer["runs"])
    both = ("preset", "state", "commit", "started")
    print_table(["run", left, right], [[name, *(str(run[name]) for run in answer["runs"])] for name in both])
    _section(
        "setting", left, right, [[one["setting"], _text(one["left"]), _text(one["right"])] for one in answer["config"]]
    )
    rows = [row for one in answer["data"] if everything or not one["same"] for row in _data_rows(one)]
    _section("data", left, right, rows)
    for kind in ("metric", "gate"):
        shown = [one for one in answer[f"{kind}s"] if everything or _value(one["left"]) != _value(one["right"])]
        rows = [[f"{one['stage']} {one[kind]}", _figure(one["left"]), _figure(one["right"])] for one in shown]
        _section(kind, left, right, rows)


def _section(what: str, left: str, right: str, rows: list[list[str]]) -> None:
    print()
    print_table([what, left, right], rows) if rows else print(f"no {what} differs")


def _data_rows(one: Pair) -> list[list[str]]:
    sides = [one["left"], one["right"]]
    rows = [[f"{one['stage']} digest", *(side["digest"][:12] if side else "" for side in sides)]]
    for words in ("in", "out", "dropped"):
        figures = [side[words] if side else {} for side in sides]
        for name in dict.fromkeys(name for some in figures for name in some):
            values = [some.get(name) for some in figures]
            if values[0] != values[1]:
                rows.append([f"{one['stage']} {words}: {name}", *map(_text, values)])
    return rows


def _value(figure: dict[str, Any] | None) -> Any:
    return figure and (figure["value"], figure.get("passed"))


def _figure(figure: dict[str, Any] | None) -> str:
    """A value with its standard error, and whether a gate let it pass."""
    if figure is None:
        return ""
    value, error = figure["value"], figure.get("standard_error")
    words = f"{value:.4g}" if isinstance(value, float) else str(value)
    words += f" ± {error:.2g}" if error is not None else ""
    if "passed" not in figure:
        return words
    found = outcome(figure)
    return found if found == UNMEASURED else f"{words} {'FAILED' if found == FAILED else found}"


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
