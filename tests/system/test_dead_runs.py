"""A run that `kill -9` ended, watched by no worker, is marked crashed by the server's automation."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from prefect.client.orchestration import get_client

from flows.notify import automate
from tests.system.conftest import ROOT


def test_a_killed_run_is_marked_crashed_and_a_living_one_is_not(prefect_api: str, preset: Path, tmp_path: Path):
    """The dead run becomes Crashed within minutes; one of the same length that still lives stays Running."""
    automate(None)
    living, dead = (_start(prefect_api, preset, tmp_path / name) for name in ("living", "dead"))
    try:
        with get_client(sync_client=True) as client:
            while len(_states(client)) < 2:
                threading.Event().wait(0.5)
            os.kill(dead.pid, signal.SIGKILL)
            dead.wait()
            while "Crashed" not in _states(client):
                assert living.poll() is None
                threading.Event().wait(1)
            assert sorted(_states(client)) == ["Crashed", "Running"]
    finally:
        living.terminate()
        living.wait()


def _start(api: str, preset: Path, store: Path) -> "subprocess.Popen[bytes]":
    """A run that goes on for long."""
    words = ["--until", "dialogues", "--set", "dialogues.tasks.train=30000000", "--store", str(store)]
    command = [sys.executable, "-m", "flows.cli", "run", str(preset), *words]
    environment = os.environ | {"PREFECT_API_URL": api}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=quiet, stderr=quiet)


def _states(client) -> list[str]:
    return [str(run.state_name) for run in client.read_flow_runs() if run.state_name in ("Running", "Crashed")]
