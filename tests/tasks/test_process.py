"""A stage's own process: whatever it prints, leaves or returns, the run goes on or ends with words."""

import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pytest

from data_curation.place import Resources
from data_curation.settings import StageError
from tasks import process
from tasks.process import Outcome, Work, run_child
from tests.tasks.rogues import RogueConfig


def ran(name: str, tmp_path: Path) -> Outcome:
    """Run one rogue."""
    shown: list[dict[str, Any]] = []
    work = Work(name, f"tests.tasks.rogues:{name}", RogueConfig(), {}, str(tmp_path), Resources(), 300.0)
    return run_child(work, shown.append)


def test_broken_lines_of_progress_hang_nothing(tmp_path: Path):
    """Lines of progress that cannot be read are kept as log, and the reader goes on."""
    assert ran("babbler", tmp_path).counts.made == {"lines": 20_000}
    assert "@progress" in (tmp_path / "work" / "log.txt").read_text()


def test_a_process_that_left_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A descendant in a session of its own that holds the output does not hold the stage."""
    monkeypatch.setattr(process, "PIPE_SECONDS", 0.2)
    before = set(psutil.pids())
    ran("leaver", tmp_path)
    left = [pid for pid in psutil.pids() if pid not in before and "time.sleep(600)" in " ".join(_command(pid))]
    assert len(left) == 1
    os.kill(left[0], signal.SIGKILL)


def test_counts_that_are_no_json_are_the_stage_s_fault(tmp_path: Path):
    """A result that cannot be written down fails the stage for good, with the type that is wrong."""
    with pytest.raises(StageError, match="int64 is not JSON serializable"):
        ran("scientist", tmp_path)


def test_a_metric_that_is_no_number_is_null_and_said(tmp_path: Path):
    """NaN has no form in JSON: it becomes null, with a warning that names it."""
    counts = ran("diverged", tmp_path).counts
    assert counts.metrics["loss"] == {"value": None, "n": 3, "standard_error": None}
    assert counts.warnings == ["loss: its value is nan"]


def test_credentials_do_not_reach_the_log(tmp_path: Path):
    """What a library prints of users and tokens in URLs is taken out before the log is kept."""
    ran("teller", tmp_path)
    assert (tmp_path / "work" / "log.txt").read_text() == "GET s3://***@host/a?token=***&x=1"


def test_scratch_of_a_killed_run_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The next stage removes scratch folders whose run is dead, and only those."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead, strange = tmp_path / "tokenmill-extract-dead", tmp_path / "tokenmill-notes"
    for folder in (dead, strange):
        folder.mkdir()
    (dead / "lock").touch()
    ran("teller", tmp_path / "home")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("tokenmill")] == ["tokenmill-notes"]


def test_a_run_that_ends_lets_its_stage_save(tmp_path: Path):
    """When the parent is interrupted, the child may finish what it does on SIGTERM, as long as `grace_seconds` says."""
    work = Work("saver", "tests.tasks.rogues:saver", RogueConfig(), {}, str(tmp_path), Resources(), None)
    with pytest.raises(KeyboardInterrupt):
        run_child(work, lambda line: os.kill(os.getpid(), signal.SIGINT))
    assert (tmp_path / "saved").exists()


def test_a_stage_that_does_not_end_is_killed(tmp_path: Path):
    """After `grace_seconds` nothing is left of a process group that ignores SIGTERM."""
    resources = Resources(grace_seconds=0.1)
    work = Work("mule", "tests.tasks.rogues:mule", RogueConfig(), {}, str(tmp_path), resources, None)
    with pytest.raises(KeyboardInterrupt):
        run_child(work, lambda line: os.kill(os.getpid(), signal.SIGINT))
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def _command(pid: int) -> list[str]:
    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return []
