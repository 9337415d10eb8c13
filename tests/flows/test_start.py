"""`tokenmill run` however it ends: one line of words, the exit code, and JSON as the last line."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    """A road of which only the dialogues are asked for."""
    config = {
        "dialogues": {"tasks": {"train": 20, "dev": 5, "test": 5}},
        "run": {name: str(tmp_path / name) for name in ("store", "export", "home", "sources")},
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def command(preset: Path, *words: str) -> list[str]:
    """The command line of a run with --json."""
    return [sys.executable, "-m", "flows.cli", "run", str(preset), "--until", "dialogues", "--json", *words]


def ended(done: "subprocess.CompletedProcess[str]") -> tuple[int, dict[str, Any], list[str]]:
    """Exit code, the JSON of the last line, and what was said in our name."""
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), _ours(done.stderr)


def stages_of(pid: int) -> list[psutil.Process]:
    """The processes of stages below a run; those that end while one looks are none."""
    return [child for child in psutil.Process(pid).children() if "tasks.child" in _words(child)]


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # a zombie too
        return []


def _hears_ctrl_c() -> None:
    """Whoever runs these tests may ignore it, as a shell does for what it starts in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _ours(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("tokenmill: ")]


@pytest.mark.usefixtures("prefect_api")
@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("run.export=/dev/null/x", "run.export: cannot write to /dev/null/x"),
        ("run.sources=/dev/null/x", "run.sources: cannot write to /dev/null/x"),
        ("run.hours={pretrian: 3}", "run.hours names 'pretrian': stages are pretrain"),
        ("run.resources.workers=-3", "run.resources.workers: "),
        ("run.store=/dev/null/x", "run.store: cannot write to /dev/null/x"),
    ],
)
def test_places_and_words_are_checked_before_anything_runs(preset: Path, setting: str, words: str):
    """What would only fail at the end of a run, or be passed over, is an error of the configuration."""
    done = subprocess.run(command(preset, "--set", setting), cwd=ROOT, capture_output=True, text=True)
    code, summary, said = ended(done)
    assert (code, summary["stages"]) == (2, [])
    assert words in said[0] and words in summary["error"]


def test_a_home_that_cannot_be_written_and_a_server_that_is_not_there(preset: Path):
    """A wrong run.home is an error of the configuration; a Prefect server that does not answer ends the run."""
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    words = command(preset, "--set", "run.home=/dev/null/x")
    code, _, said = ended(subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True))
    assert code == 2 and "run.home: cannot write to /dev/null/x" in said[0]
    environment |= {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_CLIENT_MAX_RETRIES": "0"}
    code, _, said = ended(subprocess.run(command(preset), cwd=ROOT, env=environment, capture_output=True, text=True))
    assert code == 1 and said


@pytest.mark.parametrize("option", ["refresh", "accept", "remake"])
def test_a_stage_that_is_none_is_said_before_a_server_starts(preset: Path, tmp_path: Path, option: str):
    """A misspelt stage is one line with the nearest name, exit code 2, and no server was started for it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    words = command(preset, f"--{option}", "dedupp")
    code, summary, said = ended(subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True))
    assert (code, said) == (2, [f"tokenmill: --{option} dedupp: no such stage: dedup"])
    assert summary["stages"] == [] and not (tmp_path / "home").exists()


@pytest.mark.usefixtures("prefect_api")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_what_it_was(preset: Path, tmp_path: Path, number: signal.Signals, code: int):
    """Ctrl-C and SIGTERM end the stage, release its lease, write the report and print the JSON."""
    words = command(preset, "--set", "dialogues.tasks.train=3000000")
    process = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_hears_ctrl_c
    )
    while not (children := stages_of(process.pid)):
        assert process.poll() is None
        threading.Event().wait(0.05)
    process.send_signal(number)
    out, said = process.communicate()
    found, summary, lines = ended(subprocess.CompletedProcess(words, process.returncode, out, said))
    assert found == code
    assert [(stage["name"], stage["state"]) for stage in summary["stages"]] == [("dialogues", "failed")]
    assert Path(summary["report"]).exists()
    assert lines == ["tokenmill: stopped; the next run goes on from here"]
    assert list((tmp_path / "store").glob("dialogues/*/1/released"))
    assert not psutil.wait_procs(children, timeout=60)[1]


def test_a_run_from_another_folder_has_its_server(preset: Path, tmp_path: Path):
    """A relative run.home lies below the folder in which the command is typed, and the server finds it."""
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    environment["PYTHONPATH"] = str(ROOT)
    words = command(preset, "--set", "run.home=here")
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended(done)[0] == 0, done.stderr
    assert (tmp_path / "here" / "prefect.db").exists()


def test_a_plan_makes_nothing_and_says_nothing_else(preset: Path, tmp_path: Path):
    """A plan needs no server, leaves no folder behind and prints the plan alone."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    words = [sys.executable, "-m", "flows.cli", "plan", str(preset), "--set", f"run.home={tmp_path}/here/there"]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("stage ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.yaml"]
