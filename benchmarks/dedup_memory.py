"""Memory that the verdicts of `dedup` take, on made-up signatures of two sizes."""

import multiprocessing
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_curation.dedup import DedupConfig, judge
from data_curation.dedup_columns import as_bytes, with_metadata, write_columns
from data_curation.dedup_index import about
from data_curation.place import Place, Resources

CONFIG = DedupConfig()
SIZES = (250_000, 1_000_000)


def measure(home: Path) -> dict[str, Any]:
    """Peak memory above what a fresh process has, and CPU seconds, for each size; bytes for each further document."""
    found = dict[str, Any]()
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for size in SIZES:
            pool.apply(_write, (size, home / f"memory{size}"))
            found[f"{size}"] = pool.apply(_judge, (size, home / f"memory{size}"))
    few, many = (found[f"{size}"]["bytes"] for size in SIZES)
    return found | {"bytes per document": (many - few) / (SIZES[1] - SIZES[0]), "MB at a million": many / 1e6}


def new_place(home: Path) -> Place:
    """A place for one process."""
    (home / "scratch").mkdir(parents=True, exist_ok=True)
    return Place(str(home), home / "scratch", Resources(workers=1, log_seconds=1e9))


def _write(size: int, home: Path) -> None:
    with new_place(home).piece("signatures-00000") as piece:
        write_columns(piece, "work/signatures", "00000.parquet", with_metadata(_made_up(size), about(CONFIG)))


def _judge(size: int, home: Path) -> dict[str, float]:
    place, peak, stop = new_place(home), [0], threading.Event()
    signed = place.done("signatures-00000")
    assert signed is not None
    before = _resident()

    def watch() -> None:
        while not stop.wait(0.002):
            peak[0] = max(peak[0], _resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.process_time()
    made = judge(CONFIG, [], [], [signed], place)
    spent = time.process_time() - start
    stop.set()
    watcher.join()
    return {"bytes": peak[0] - before, "seconds": spent, "clusters": sum(made.note["sizes"].values())}


def _made_up(size: int) -> pa.Table:
    """Signatures of which most share some bands with a few others."""
    draw = np.random.default_rng(size)

    def numbers(*shape: int) -> NDArray[np.uint64]:
        return draw.integers(1, 2**64, shape, dtype=np.uint64)

    bands = numbers(size * 4 // 5, CONFIG.bands)[draw.integers(0, size * 4 // 5, size)]
    noise = draw.random(bands.shape) < 0.4
    bands[noise] = numbers(int(noise.sum()))
    columns: dict[str, Any] = {
        "id": as_bytes(numbers(size, 2)),
        "url": pa.array([f"http://site.example/{row}" for row in range(size)]),
        "url_key": numbers(size),
        "score": draw.random(size),
        "exact": as_bytes(numbers(size, 2)),
    }
    return pa.table(columns | {f"band{band:02d}": bands[:, band] for band in range(CONFIG.bands)})


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
