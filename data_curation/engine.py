"""Numbered tasks in worker processes, one piece each; a killed or stuck worker is an error, never a hang."""

import faulthandler
import gc
import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

from data_curation.counts import Counts
from data_curation.place import Piece, PieceWriter, Place
from data_curation.settings import StageError, TransientError

if TYPE_CHECKING:
    from datatrove.pipeline.base import PipelineStep

Work = Callable[[int, PieceWriter], None]
"""What a task does: takes its number and writes its one piece. Must be picklable: a function or a frozen dataclass."""


def run_tasks(place: Place, tasks: int, work: Work, *, module: str = "", prefix: str = "") -> list[Piece]:
    """Run tasks 0..tasks-1, each writing the piece `PREFIX00000`, ...; returns the pieces in order of the tasks.

    `module` is what the tasks import, so that workers need not each. Pieces that an earlier attempt completed are
    taken as they are. One worker, or one task, runs in this process
    (then without a time limit of its own). Raises TransientError when a worker died, StageError when one took too long.
    """
    rest_collector()
    names = [f"{prefix}{rank:05d}" for rank in range(tasks)]
    missing = [rank for rank, name in enumerate(names) if place.done(name) is None]
    progress = place.progress("tasks", tasks)
    progress.update(tasks - len(missing))
    workers = min(place.resources.workers, len(missing))
    if workers <= 1:
        for rank in missing:
            _one(place, names[rank], rank, work)
            progress.update()
    else:
        _pool(place, [(names[rank], rank) for rank in missing], work, workers, module, progress.update)
    pieces = [place.done(name) for name in names]
    lost = [name for name, piece in zip(names, pieces, strict=True) if piece is None]
    if lost:
        raise StageError(f"{place.name}: tasks {', '.join(lost)} ended without a piece")
    return [piece for piece in pieces if piece is not None]


def rest_collector() -> None:
    """Let Python look for cycles of garbage less often: a quarter of the time of `clean`, which makes many objects."""
    gc.set_threshold(50_000, 20, 100)


def run_pipeline(steps: "Sequence[PipelineStep]", rank: int = 0, world: int = 1) -> None:
    """Run datatrove steps for one rank to the end, as its executors do."""
    data = None
    for step in steps:
        data = step(data, rank, world)
    deque(data or (), maxlen=0)


def total(pieces: Sequence[Piece]) -> Counts:
    """The sum of all pieces' counts."""
    counts = Counts()
    for piece in pieces:
        counts.add(piece.counts)
    return counts


def _one(place: Place, name: str, rank: int, work: Work) -> None:
    with place.piece(name) as piece:
        work(rank, piece)


def _pool(
    place: Place, tasks: list[tuple[str, int]], work: Work, workers: int, module: str, done: Callable[[], None]
) -> None:
    """At most `workers` tasks are under way, so that a task's clock starts when it is handed out."""
    # Workers are forked from a clean process: from this one they would inherit its threads' locks.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["data_curation.engine", "data_curation.documents", *([module] if module else [])])
    limit = place.resources.task_seconds
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(place, work)) as pool:
        waiting, running = deque(tasks), dict[Future[None], tuple[str, float]]()
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    name, rank = waiting.popleft()
                    future = pool.submit(_limited, limit, name, rank)
                    running[future] = (name, time.monotonic())
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                    del running[future]
                    done()
        except BrokenProcessPool:
            slow = [name for name, start in running.values() if time.monotonic() - start >= limit]
            if slow:
                raise StageError(
                    f"{place.name}: task {slow[0]} took longer than {limit:g} s (run.resources.task_seconds); "
                    "its log shows where"
                ) from None
            names = ", ".join(name for name, _ in running.values())
            raise TransientError(
                f"{place.name}: a worker was killed (out of memory?) during tasks {names}; complete ones are kept"
            ) from None
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _limited(seconds: float, name: str, rank: int) -> None:
    # Ends the process from a thread in C: Python's own timers do not fire while a library holds the interpreter lock.
    faulthandler.dump_traceback_later(seconds, exit=True, file=2)
    try:
        _one(_here[0], name, rank, _here[1])
    finally:
        faulthandler.cancel_dump_traceback_later()


_here: list[Any] = []
"""In a worker: the place and the work, sent once and not with every task."""


def _start(place: Place, work: Work) -> None:
    """Begin a worker. If its parent is killed it ends too: it must not write into an attempt that nobody holds."""
    rest_collector()
    _here[:] = [place, work]
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
