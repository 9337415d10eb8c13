"""Guarantees of the engine: one piece per task, nothing hangs, the number of workers changes nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from data_curation.counts import Counts
from data_curation.engine import run_pipeline, run_tasks, total
from data_curation.place import PieceWriter
from data_curation.settings import InputError, StageError, TransientError
from tests.data_curation.places import artifact, place


def write_number(rank: int, piece: PieceWriter) -> None:
    """Write the task's number."""
    with piece.write("numbers", f"{rank:05d}.txt") as out:
        out.write(str(rank).encode())
    piece.piece.counts.add(Counts(taken={"tasks": 1}, warnings=["seen"]))


def die_at_two(rank: int, piece: PieceWriter) -> None:
    """Kill the worker of task 2, as a kernel out of memory does."""
    if rank == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    write_number(rank, piece)


def stop_at_one(rank: int, piece: PieceWriter) -> None:
    """Never end task 1."""
    while rank == 1:
        signal.pause()
    write_number(rank, piece)


def refuse_at_one(rank: int, piece: PieceWriter) -> None:
    """Raise our own error in task 1."""
    if rank == 1:
        raise InputError("file 1: damaged")
    write_number(rank, piece)


def test_workers_change_no_byte(tmp_path: Path) -> None:
    """One and three workers write the same pieces in the same order, and counts that sum to the same."""
    made = []
    for workers in (1, 3):
        where = place(tmp_path / str(workers), tmp_path, workers=workers)
        pieces = run_tasks(where, 5, write_number)
        assert [piece.name for piece in pieces] == ["00000", "00001", "00002", "00003", "00004"]
        assert total(pieces) == Counts(taken={"tasks": 5}, warnings=["seen"])
        made.append(artifact(where).part("numbers"))
    assert made[0] == made[1]


def test_complete_pieces_are_not_made_again(tmp_path: Path) -> None:
    """A piece that an earlier attempt completed stays as it is."""
    where = place(tmp_path / "home", tmp_path)
    with where.piece("00001") as piece, piece.write("numbers", "00001.txt") as out:
        out.write(b"from before")
    run_tasks(where, 2, write_number)
    contents = [(tmp_path / "home" / "numbers" / f"0000{rank}.txt").read_bytes() for rank in range(2)]
    assert contents == [b"0", b"from before"]


def test_killed_worker_is_an_error(tmp_path: Path) -> None:
    """A worker that is killed ends the stage with a transient error; the pieces before it stay complete."""
    where = place(tmp_path / "home", tmp_path, workers=2)
    with pytest.raises(TransientError, match="was killed"):
        run_tasks(where, 4, die_at_two)
    assert {piece.name for piece in where.pieces()} & {"00000", "00001"}
    assert where.done("00002") is None
    assert [piece.name for piece in run_tasks(where, 4, write_number)] == ["00000", "00001", "00002", "00003"]


def test_stuck_task_is_ended(tmp_path: Path) -> None:
    """A task above its time limit is ended and named."""
    where = place(tmp_path / "home", tmp_path, workers=2, seconds=2.0)
    with pytest.raises(StageError, match=r"task 00001 took longer than 2 s \(run\.resources\.task_seconds\)"):
        run_tasks(where, 2, stop_at_one)


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_come_through(tmp_path: Path, workers: int) -> None:
    """A task's own error arrives as it was raised, from this process or another."""
    with pytest.raises(InputError, match=r"^file 1: damaged$"):
        run_tasks(place(tmp_path / "home", tmp_path, workers=workers), 3, refuse_at_one)


def test_pipeline_runs_to_its_end(tmp_path: Path) -> None:
    """datatrove's steps are chained, and drawn from until nothing is left."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import LambdaFilter

    from data_curation.table_steps import ReadTable, WriteTable
    from tests.data_curation.places import documents, rows

    given = documents(tmp_path / "given", [[{"id": str(number), "text": "x" * number} for number in range(6)]])
    where = place(tmp_path / "home", tmp_path)

    def long(document: Document) -> bool:
        return len(document.text) > 2

    with where.piece("00000") as piece:
        steps = [ReadTable(given.uris("documents")[0]), LambdaFilter(long), WriteTable(piece, "00000.parquet")]
        run_pipeline(steps)
    assert [row["id"] for row in rows(artifact(where))] == ["3", "4", "5"]


def note_and_stop(rank: int, piece: PieceWriter) -> None:
    """Leave the worker's process id in a file, then never end."""
    Path(piece.place.scratch, f"{rank}.tmp").write_text(str(os.getpid()))
    Path(piece.place.scratch, f"{rank}.tmp").rename(Path(piece.place.scratch, f"{rank}.pid"))
    signal.pause()


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    """When the stage's process is killed with -9, its workers end too: nobody writes for a stage that is dead."""
    script = (
        "from pathlib import Path\n"
        "from data_curation.engine import run_tasks\n"
        "from tests.data_curation.places import place\n"
        "from tests.data_curation.test_engine import note_and_stop\n"
        "if __name__ == '__main__':\n"
        f"    run_tasks(place('{tmp_path}/home', Path('{tmp_path}'), workers=2), 2, note_and_stop)\n"
    )
    (tmp_path / "stage.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, str(tmp_path / "stage.py")], env=environment) as parent:
        notes = [tmp_path / f"{rank}.pid" for rank in range(2)]
        while not all(note.exists() for note in notes):
            assert parent.poll() is None
            os.sched_yield()
        workers = [psutil.Process(int(note.read_text())) for note in notes]
        parent.kill()
        _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []
