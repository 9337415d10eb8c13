"""`tokenmill plan` before anything was made: every stage has its figures, and what is missing is said, not raised."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent


def plan(preset: str, home: Path, *words: str) -> dict[str, Any]:
    """The JSON of a plan against an empty store."""
    places = [f"--set=run.{name}={home / name}" for name in ("store", "sources", "home")]
    command = [sys.executable, "-m", "flows.cli", "plan", preset, "--json", *places, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_the_demo_is_known_before_it_was_ever_made(tmp_path: Path) -> None:
    """Without store and sources seconds are within a factor of three of those that were published.

    After pretraining only the whole is compared: the preset is tuned more often than its benchmark is run.
    """
    published = json.loads((ROOT / "benchmarks/results/demo.json").read_text())["rows"]
    took = {row["name"].removesuffix(": seconds"): row["ours"] for row in published if row["unit"] == "s"}
    planned = plan("demo", tmp_path, "--set=run.resources.device=cpu", "--set=run.usd_per_hour=2")
    assert planned["total"]["unknown"] == [] and planned["missing"] == []
    for stage in planned["stages"]:
        tuned = stage["stage"] in ("instruct", "pairs", "reward", "prefer", "reinforce")
        assert tuned or took[stage["name"]] / 3 < stage["seconds"] < 3 * took[stage["name"]], stage
        assert stage["bytes"] > 0 and stage["usd"] == pytest.approx(stage["seconds"] / 1800, abs=1e-4)
    stages = sum(took[stage["name"]] for stage in planned["stages"])
    assert stages / 2.5 < 3600 * planned["total"]["hours"] < stages * 2.5
    assert 40e6 < planned["total"]["bytes"] < 160e6
    (shard,) = (stage for stage in planned["stages"] if stage["stage"] == "shard")
    assert 0.5e6 < shard["tokens"] < 2e6


@pytest.mark.usefixtures("prefect_api")
def test_a_plan_without_its_sources_says_so_and_goes_on(tmp_path: Path) -> None:
    """Training is counted in GPU hours, curation is named as unknown; the run itself ends before it begins."""
    planned = plan("h100", tmp_path)
    missing = ["path of source 'chat' is 'data/chat'", "path of source 'crawl' is 'data/warc'"]
    assert [text.split(":")[0] for text in planned["missing"]] == missing
    assert planned["total"]["unknown"][:3] == ["dialogues", "extract", "clean"]
    phases = [stage for stage in planned["stages"] if stage["stage"] == "pretrain"]
    flops = sum(phase["flops"] for phase in planned["budget"]["phases"])
    hours = flops / 989.4e12 / 0.5 / 3600
    assert sum(stage["gpu_hours"] for stage in phases) == pytest.approx(hours, rel=0.01)
    places = [f"--set=run.{name}={tmp_path / name}" for name in ("store", "sources", "home", "export")]
    command = [sys.executable, "-m", "flows.cli", "run", "h100", *places]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and f"tokenmill: {missing[0]}: no such folder" in done.stderr
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["runs"]


def test_gpus_of_alignment_are_counted(tmp_path: Path) -> None:
    """Two of them take less time, but each of them all of it; `pairs` takes one."""
    large = ["--set=pretrain.model={depth: 20}", "--set=instruct.epochs=50"]
    one, two = (
        {stage["name"]: stage for stage in plan("demo", tmp_path, *large, resources)["stages"]}
        for resources in ("--set=run.resources={device: cuda}", "--set=run.resources={device: cuda, ranks: 2}")
    )
    for name in ("instruct", "reward", "prefer", "reinforce"):
        assert two[name]["seconds"] < one[name]["seconds"]
        assert two[name]["gpu_hours"] == pytest.approx(2 * two[name]["seconds"] / 3600)
    assert two["pairs"]["gpu_hours"] == one["pairs"]["gpu_hours"] == pytest.approx(one["pairs"]["seconds"] / 3600)


def test_an_existing_model_stands_in_the_place_of_pretraining(tmp_path: Path) -> None:
    """The road has the stage `base`, no phases and nothing that measures them; a plan takes no look into the files."""
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (foreign / name).write_text("{}")
    stages = plan("demo", tmp_path, f"--set=base.path={foreign}", f"--set=tokenizer.path={foreign}")["stages"]
    words = [stage["stage"] for stage in stages]
    assert "pretrain" not in words and words.index("shard") < words.index("base") < words.index("instruct")
    evaluated = [stage["name"] for stage in stages if stage["stage"] == "evaluate"]
    assert evaluated == ["evaluate-base", "evaluate-sft", "evaluate-dpo", "evaluate-grpo"]


def test_a_plan_may_end_before_phases_that_ask_for_too_much(tmp_path: Path) -> None:
    """The warning of too few documents has no stage to stand at then; the plan is made all the same."""
    planned = plan("demo", tmp_path, "--until=shard", "--set=pretrain.phases.0.tokens=5e7")
    assert [stage["name"] for stage in planned["stages"]][-1] == "shard"
