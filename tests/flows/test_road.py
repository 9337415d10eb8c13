"""The road by its own command: cached, changed, refreshed, killed and resumed, from generated pages to a base model."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.data_curation.prose import paragraphs

ROOT = Path(__file__).parent.parent.parent
PAGES = 80


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of generated HTML pages, every tenth one a copy of the page before."""
    folder = tmp_path_factory.mktemp("pages")
    for number in range(PAGES):
        body = "".join(f"<p>{text}</p>" for text in paragraphs(number - (number % 10 == 9), count=8, length=5))
        (folder / f"{number:03}.html").write_text(
            f"<html><title>{number}</title><body><main>{body}</main></body></html>"
        )
    return folder


@pytest.fixture
def preset(pages: Path, tmp_path: Path) -> Path:
    """A configuration of the whole road at the smallest scale, working below `tmp_path`."""
    phase = {"tokens": 2048, "learning_rate": 1e-3}
    config = {
        "dialogues": {"tasks": {"train": 30, "dev": 10, "test": 10}},
        "extract": {"sources": [{"name": "pages", "kind": "html", "path": str(pages)}], "bytes_per_task": 60_000},
        "clean": {"languages": [{"code": "en"}]},
        "tokenizer": {"vocab_size": 400},
        "shard": {"heldout_fraction": 0.1, "tokens_per_shard": 20_000},
        "pretrain": {
            "model": {
                "family": "llama",
                "hidden_size": 32,
                "layers": 2,
                "heads": 2,
                "kv_heads": 2,
                "intermediate_size": 64,
            },
            "tokens_per_step": 512,
            "dtype": "float32",
            "phases": [phase | {"seq_len": 64, "tokens": 10_240}, phase | {"seq_len": 128}],
        },
        "run": {
            **{name: str(tmp_path / name) for name in ("store", "export", "home", "sources")},
            "resources": {"workers": 2, "threads": 1, "device": "cpu", "checkpoint_seconds": 0},
        },
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def tokenmill(*words: str | Path) -> tuple[int, dict[str, Any], str]:
    """Run the command with --json: exit code, the JSON of its last line, what it said on stderr."""
    command = [sys.executable, "-m", "flows.cli", *map(str, words), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}, done.stderr


def states(summary: dict[str, Any]) -> dict[str, str]:
    """Stage name -> state."""
    return {stage["name"]: stage["state"] for stage in summary["stages"]}


def digests(summary: dict[str, Any]) -> dict[str, str]:
    """Stage name -> digest."""
    return {stage["name"]: stage["digest"] for stage in summary["stages"]}


@pytest.mark.usefixtures("prefect_api")
def test_second_run_changed_field_and_refresh(preset: Path, tmp_path: Path):
    """Run, run again, change a field, refresh: only what depends on changed bytes is made again."""
    code, first, said = tokenmill("run", preset, "--until", "shard")
    assert code == 0, said
    assert set(states(first).values()) == {"made"}
    assert set(states(tokenmill("run", preset, "--until", "shard")[1]).values()) == {"cached"}
    # Another banding finds the same planted copies, so what follows stays cached.
    _, changed, _ = tokenmill("run", preset, "--until", "shard", "--set", "dedup.bands=20")
    assert {name for name, state in states(changed).items() if state == "made"} == {"dedup"}
    _, refreshed, _ = tokenmill("run", preset, "--until", "shard", "--refresh", "dedup")
    assert {name for name, state in states(refreshed).items() if state == "made"} == {"dedup"}
    assert digests(refreshed) == digests(first)
    _, planned, _ = tokenmill("plan", preset, "--until", "shard", "--set", "clean.gopher.min_words=51")
    why = {stage["name"]: (stage["state"], stage["why"]) for stage in planned["stages"]}
    assert why["extract"] == ("cached", "")
    assert why["clean"] == ("run", "field clean.gopher.min_words 50 -> 51")
    assert why["dedup"] == ("if-changed", "only if the output of clean changes")
    # The shards are known now, so the plan holds them against the phases.
    _, planned, _ = tokenmill("plan", preset, "--set", "run.usd_per_hour=2")
    assert planned["budget"]["unique"] > 0 and planned["budget"]["phases"][1]["long_tokens"] > 0
    assert any("compute-optimal" in text for stage in planned["stages"] for text in stage["warnings"])
    assert planned["total"]["flops"] > sum(phase["flops"] for phase in planned["budget"]["phases"])
    report = json.loads((tmp_path / "export" / "report.json").read_text())
    duplicates = [row["documents"] for row in report["funnel"] if row["stage"] == "dedup"]
    assert sum(duplicates) == PAGES // 10
    (row,) = report["budget"]  # of the refresh: planned with what it took before, against what it took now
    assert row["stage"] == "dedup" and row["planned"]["bytes"] == row["actual"]["bytes"]
    assert row["planned"]["seconds"] > 0 < row["actual"]["seconds"]


@pytest.mark.usefixtures("prefect_api")
def test_workers_and_folders_do_not_show(preset: Path, tmp_path: Path, bucket: str):
    """One digest with 1 and 3 workers, in two folders, and on s3."""
    runs = [
        tokenmill("run", preset, "--until", "shard", "--store", store, "--set", f"run.resources.workers={workers}")
        for store, workers in ((tmp_path / "one", 1), (tmp_path / "two", 3), (bucket, 2))
    ]
    assert [code for code, _, _ in runs] == [0, 0, 0], runs[-1][2]
    assert digests(runs[0][1]) == digests(runs[1][1]) == digests(runs[2][1])


@pytest.mark.usefixtures("prefect_api")
def test_killed_pretraining_ends_with_equal_bytes(preset: Path, tmp_path: Path):
    """kill -9 in the middle of pretraining, start again at once: earlier stages cached, the same final digest.

    What each phase has learnt is measured on the held-out documents of the shards.
    """
    command = [sys.executable, "-m", "flows.cli", "run", str(preset), "--until", "pretrain"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    while len(list((tmp_path / "store" / "pretrain").glob("*/1/work/pieces/checkpoint-*.json"))) < 2:
        assert process.poll() is None, (tmp_path / "log").read_text()
        threading.Event().wait(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    code, resumed, said = tokenmill("run", preset, "--until", "pretrain")
    assert code == 0, said
    made = {name for name, state in states(resumed).items() if state == "made"}
    assert made == {"pretrain-64", "evaluate-pretrain-64", "pretrain-128"}
    assert "goes on with" in said
    _, unbroken, _ = tokenmill("run", preset, "--until", "pretrain", "--store", tmp_path / "other")
    assert digests(resumed) == digests(unbroken)
    made = [Path(stage["uri"], "manifest.json") for stage in resumed["stages"] if stage["stage"] == "pretrain"]
    learnt = [json.loads(path.read_text())["counts"]["metrics"] for path in made]
    assert all({"context_gain", "needle_accuracy", "loss/position/0-63"} <= set(metrics) for metrics in learnt)


@pytest.mark.usefixtures("prefect_api")
@pytest.mark.parametrize(
    ("setting", "code", "words"),
    [
        ("pretrain.phases.0.tokens=512", 2, "the first phase needs more than half"),
        ("dedup.bandz=3", 2, "did you mean bands"),
        ("run.free_gigabytes=1e9", 2, "run.store: the plan needs"),
        ("run.store=/dev/null/store", 2, "run.store: cannot write"),
        ("extract.sources.0.path=/nowhere", 2, "/nowhere"),
        ("clean.gopher.min_words=100000", 1, "gopher-short-doc"),
    ],
)
def test_wrong_runs_are_explained(preset: Path, setting: str, code: int, words: str):
    """What is wrong ends with one line that names it, exit code 2 (settings) or 1 (data), and JSON all the same."""
    found, summary, said = tokenmill("run", preset, "--until", "clean", "--set", setting)
    line = next(line for line in said.splitlines() if line.startswith("tokenmill: "))
    assert words in line
    assert found == code
    assert "error" in summary and "Traceback" not in said
