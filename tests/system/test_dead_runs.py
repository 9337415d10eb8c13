"""A run that `kill -9` ended, watched by no worker, is marked crashed by the server's automation."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client

from flows.notify import automate
from tests.system.conftest import ROOT


def test_a_killed_run_is_marked_crashed_and_a_living_one_is_not(prefect_api: str, preset: Path, tmp_path: Path):
    """The dead run becomes Crashed within minutes; one of the same length that still lives stays Running."""
    automate(None)
    runs = [_start(prefect_api, preset, tmp_path / name) for name in ("living", "dead")]
    living, dead = runs
    stages: list[psutil.Process] = []
    try:
        stages += map(_held_stage, runs)
        os.kill(dead.pid, signal.SIGKILL)
        dead.wait()
        with get_client(sync_client=True) as client:
            while "Crashed" not in (states := _states(client)):
                assert living.poll() is None
                threading.Event().wait(1)
        assert states == ["Crashed", "Running"]
    finally:
        for stage in stages:
            stage.kill()
        for run in runs:
            run.terminate()
            run.wait()


def _start(api: str, preset: Path, store: Path) -> "subprocess.Popen[bytes]":
    long = ["--set", "dialogues.tasks.train=3000000", "--set", "dialogues.families=[count]"]  # few others have so many
    words = ["--until", "dialogues", *long, "--store", str(store)]
    command = [sys.executable, "-m", "flows.cli", "run", str(preset), *words]
    environment = os.environ | {"PREFECT_API_URL": api}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=quiet, stderr=quiet)


def _held_stage(run: "subprocess.Popen[bytes]") -> psutil.Process:
    """The process of the run's stage, stopped: the run goes on for as long as the test wants."""
    while True:
        assert run.poll() is None
        for child in psutil.Process(run.pid).children():
            if "tasks.child" in child.cmdline():
                child.suspend()
                return child
        threading.Event().wait(0.05)


def _states(client: SyncPrefectClient) -> list[str]:
    return sorted(str(run.state_name) for run in client.read_flow_runs() if run.state_name in ("Running", "Crashed"))
