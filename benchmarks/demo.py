"""Seconds and peak memory of every stage of the demo, in a fresh folder, then of a second, cached run.

python -m benchmarks.demo [--json] [--sources out/sources]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from tasks.artifact import commit, machine, packages

RESULTS = Path(__file__).parent / "results" / "demo.json"
GOAL_SECONDS, GOAL_BYTES = 480.0, 6e9


def main() -> int:
    """Run the demo twice and print one row per figure; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--sources", default="", help="folder of fetched sources, to leave fetching out of the figures")
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.name}")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tokenmill-bench-") as folder:
        first, first_seconds, peak = _run(Path(folder), asked.sources)
        second, second_seconds, _ = _run(Path(folder), asked.sources)
    rows = [
        _row("whole run, first", first_seconds, "s", GOAL_SECONDS),
        _row("whole run, everything cached", second_seconds, "s", None),
        _row("peak memory of all processes", peak / 1e9, "GB", GOAL_BYTES / 1e9),
    ]
    for stage in first["stages"]:
        rows.append(_row(f"{stage['name']} seconds", stage["work_seconds"], "s", None))
        rows.append(_row(f"{stage['name']} memory", stage["peak_memory"] / 1e9, "GB", None))
    result = {"rows": rows, "agreement": {"cached": all(stage["state"] == "cached" for stage in second["stages"])}}
    if asked.save:
        about = {
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "commit": commit(),
            "machine": machine(),
            "packages": packages(),
        }
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result | about, indent=1) + "\n")
    for row in rows:
        print(f"{row['name']:<44}{row['ours']:>10.2f} {row['unit']}")
    if asked.json:
        print(json.dumps(result))
    return 0 if all(row["met"] is not False for row in rows) else 1


def _run(folder: Path, sources: str) -> tuple[dict[str, Any], float, int]:
    """One run of the demo in a folder: its report, seconds from start to end, peak of summed resident memory."""
    places = {"store": "store", "home": "home", "export": "export", "sources": "sources"}
    sets = {name: str(folder / path) for name, path in places.items()} | ({"sources": sources} if sources else {})
    options = [word for name, value in sets.items() for word in ("--set", f"run.{name}={value}")]
    started, peak = time.monotonic(), 0
    process = psutil.Popen([sys.executable, "-m", "flows.cli", "run", "demo", *options], stdout=sys.stderr)
    while process.poll() is None:
        peak = max(peak, sum(_memory(each) for each in [process, *process.children(recursive=True)]))
        time.sleep(0.5)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, "tokenmill run demo")
    return json.loads((folder / "export" / "report.json").read_text()), time.monotonic() - started, peak


def _memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _row(name: str, ours: float, unit: str, goal: float | None) -> dict[str, Any]:
    met = None if goal is None else ours <= goal
    return {"name": name, "ours": round(ours, 3), "other": None, "unit": unit, "ratio": None, "goal": goal, "met": met}


if __name__ == "__main__":
    sys.exit(main())
