"""Seconds and peak memory of every stage of the demo, in a fresh folder, then of a second, cached run.

python -m benchmarks.demo [--json] [--sources out/sources]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.measure import finish, options, row

GOAL_SECONDS, GOAL_BYTES = 480.0, 6e9
TITLE = "seconds and memory of the demo"
NOTE = """One run on a quiet machine. Fetching 30 MB of packages is included; installation is not. Seconds of a stage
are those of its own process, imports included; memory is the sum of resident memory over its processes, so pages that
processes share count more than once."""


def main() -> int:
    """Run the demo twice and print one row per figure; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    options(parser)
    parser.add_argument("--sources", default="", help="folder of fetched sources, to leave fetching out of the figures")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tokenmill-bench-") as folder:
        first, first_seconds, peak = _run(Path(folder), asked.sources)
        second, second_seconds, _ = _run(Path(folder), asked.sources)
    rows = [
        row("whole run, first", first_seconds, None, "s", GOAL_SECONDS, less=True),
        row("whole run, everything cached", second_seconds, None, "s"),
        row("peak memory of all processes", peak / 1e9, None, "GB", GOAL_BYTES / 1e9, less=True),
    ]
    for stage in first["stages"]:
        rows.append(row(f"{stage['name']}: seconds", stage["work_seconds"], None, "s"))
        rows.append(row(f"{stage['name']}: memory", stage["peak_memory"] / 1e9, None, "GB"))
    cached = all(stage["state"] == "cached" for stage in second["stages"])
    result = {"rows": rows, "agreement": {"second run: everything cached": cached}}
    return finish("demo", TITLE, NOTE, result, asked)


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


if __name__ == "__main__":
    sys.exit(main())
