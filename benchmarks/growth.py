"""What a page costs at N, 4N and 16N pages, stage by stage, and the peak memory of the process that runs the tasks."""

import multiprocessing
from pathlib import Path

from benchmarks.chain import Ours
from benchmarks.measure import Row, pin, row, seconds

SIZES = (1, 4, 16)
STAGES = ("extract", "clean", "dedup")


def measure(files: list[Path], smallest: int, home: Path) -> list[Row]:
    """One row for each stage and size; tasks are as large as the smallest run, so larger runs have more of them."""
    rows: list[Row] = []
    found: dict[tuple[str, int], tuple[float, float]] = {}
    sizes = [size for size in SIZES if size * smallest <= len(files)]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for size in sizes:
            for stage in STAGES:
                found[stage, size] = pool.apply(_stage, (stage, files[: size * smallest], smallest, home / f"x{size}"))
    for stage in STAGES:
        least = found[stage, sizes[0]]
        for size in sizes:
            spent, memory = found[stage, size]
            name = f"{stage}, {size}N pages"
            rows.append(row(f"{name}: CPU per page, N beside", spent, least[0], "ms", less=True))
            rows.append(row(f"{name}: peak memory, N beside", memory, least[1], "MB", less=True))
    return rows


def _stage(stage: str, files: list[Path], smallest: int, home: Path) -> tuple[float, float]:
    """CPU milliseconds per page and peak megabytes of one stage in a fresh process; stages before it are done."""
    pin()
    ours = Ours(home, files, per_task=smallest)
    spent = seconds(lambda: ours.stage(stage))
    read = sum(piece.note["read"] for piece in ours.places["extract"].pieces())
    return spent * 1000 / read, _peak()


def _peak() -> float:
    """Megabytes; getrusage would tell those of the parent, where it had more."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
