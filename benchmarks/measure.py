"""CPU seconds of two sides in turns, rows of a result, its JSON file and its section of RESULTS.md."""

import argparse
import json
import os
import re
import resource
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from data_curation.engine import rest_collector
from tasks.artifact import commit, machine, packages

FOLDER = Path(__file__).parent
Row = dict[str, Any]
PEERS = ("trafilatura", "resiliparse", "fastwarc", "warcio", "spacy", "fasttext-predict", "scipy", "rensa")


def pin() -> None:
    """Keep this process and its children on one core, for all sides with the collector of garbage as stages have it."""
    rest_collector()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of some work in this process and in its children."""
    start = -_of_children() - time.process_time()
    work()
    return start + time.process_time() + _of_children()


def _of_children() -> float:
    """CPU seconds so far of children, those that ended and those that live."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = ended.ru_utime + ended.ru_stime
    for child in psutil.Process().children():
        try:
            spent += sum(child.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return spent


def in_turns(sides: dict[str, Callable[[Any], Any]], shares: Iterable[Any]) -> dict[str, float]:
    """CPU seconds of each side over all shares; every share goes to all sides before the next one is touched.

    A machine that others use changes its speed within seconds: so the change meets all sides. The order of the sides
    turns as well.
    """
    spent = dict.fromkeys(sides, 0.0)
    names = list(sides)
    for share in shares:
        for name in names:
            spent[name] += seconds(lambda side=sides[name], some=share: side(some))
        names = names[1:] + names[:1]
    return spent


def parts(values: list[Any], size: int) -> list[list[Any]]:
    """Consecutive parts of a list."""
    return [values[start : start + size] for start in range(0, len(values), size)]


def row(
    name: str, ours: float, other: float | None, unit: str, goal: float | None = None, *, less: bool = False
) -> Row:
    """One line of a result; `goal` is met from there upwards, or downwards with `less`."""
    ours, other = _rounded(ours), None if other is None else _rounded(other)
    ratio = None if not other or not ours else _rounded(other / ours if less else ours / other)
    met = None if goal is None else (ours <= goal if less else ours >= goal)
    return {"name": name, "ours": ours, "other": other, "unit": unit, "ratio": ratio, "goal": goal, "met": met}


def options(parser: argparse.ArgumentParser) -> None:
    """The options that all benchmarks have."""
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--save", action="store_true", help="write results/NAME.json and the section of RESULTS.md")


def finish(name: str, title: str, note: str, result: dict[str, Any], asked: argparse.Namespace) -> int:
    """Print a result, keep it where asked to; 1 if a goal is missed."""
    if asked.save:
        whole = result | about()
        (FOLDER / "results").mkdir(exist_ok=True)
        (FOLDER / "results" / f"{name}.json").write_text(json.dumps(whole, indent=1) + "\n")
        page = FOLDER / "RESULTS.md"
        page.write_text(with_section(page.read_text(), f"## {name}.py: {title}", section(whole, note)))
    for line in result["rows"]:
        print(" ".join(f"{cell:<46}" if index == 0 else f"{cell:>14}" for index, cell in enumerate(_cells(line))))
    for key, value in result.items():
        if key != "rows":
            print(key, json.dumps(value))
    if asked.json:
        print(json.dumps(result))
    return 0 if all(line["met"] is not False for line in result["rows"]) else 1


def about() -> dict[str, Any]:
    """When, where and with what a result was made."""
    peers = {name: metadata.version(name) for name in PEERS}
    cpus = len(os.sched_getaffinity(0))
    versions = packages() | peers
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": commit(),
        "machine": machine() | {"cores": cpus},
        "packages": versions,
    }


def section(result: dict[str, Any], note: str) -> str:
    """A result as Markdown."""
    versions = ", ".join(
        f"{name} {version}" for name, version in result["packages"].items() if name in (*PEERS, "datatrove")
    )
    system = result["machine"]
    head = (
        f"{result['date']}, commit {result['commit'][:12]}, {system['system']}, Python {system['python']}, {versions}."
    )
    lines = [
        head,
        "",
        note.strip(),
        "",
        "| what | ours | other | unit | ratio | goal | met |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(_cells(line))} |" for line in result["rows"]]
    lines += ["", "What differed in the output:", ""]
    lines += [f"- {name}: {_words(value)}" for name, value in (result["agreement"] or {}).items()]
    return "\n".join(lines)


def with_section(page: str, title: str, text: str) -> str:
    """The page with a section of that title, in place of an earlier one of the same script."""
    script = title.split(":")[0]
    kept = re.split(r"\n(?=## )", page.rstrip())
    mine = f"{title}\n\n{text}\n"
    others = [part for part in kept if not part.startswith(script + ":")]
    at = next((index for index, part in enumerate(kept) if part.startswith(script + ":")), len(others))
    return "\n\n".join(part.strip("\n") for part in [*others[:at], mine, *others[at:]]) + "\n"


def _cells(line: Row) -> list[str]:
    met = {None: "", True: "yes", False: "no"}[line["met"]]
    numbers = ["" if line[key] is None else _figure(line[key]) for key in ("ours", "other")]
    ratio = "" if line["ratio"] is None else _figure(line["ratio"])
    goal = "" if line["goal"] is None else _figure(line["goal"])
    return [line["name"], *numbers, line["unit"], ratio, goal, met]


def _figure(value: float) -> str:
    return f"{value:,.12g}"


def _rounded(value: float) -> float:
    """Three digits, or whole numbers."""
    return float(f"{value:.3g}") if abs(value) < 1000 else round(value)


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(one)}" for key, one in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_words, value)) or "none"
    return _figure(_rounded(value)) if isinstance(value, float | int) and not isinstance(value, bool) else str(value)
