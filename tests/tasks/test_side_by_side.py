"""Guarantees of the comparison of models: gains pair by pair beside what they cost, answers to one prompt together."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_curation.counts import Counts
from data_curation.files import File
from tasks.artifact import Manifest
from tasks.run import StageRecord
from tasks.side_by_side import answers, comparison, gains


def record(home: Path, name: str, stage: str, seconds: float, counts: Counts, outcomes: Any = None) -> StageRecord:
    """A finished stage, with the results of single examples where they are given."""
    records: list[File] = []
    if outcomes is not None:
        (home / name / "records").mkdir(parents=True)
        (home / name / "records" / "outcomes.json").write_text(json.dumps(outcomes))
        records = [File("outcomes.json", 1, "")]
    fields: dict[str, Any] = dict.fromkeys(Manifest.__dataclass_fields__)
    fields |= {"word": stage, "parts": {}, "records": records, "counts": counts, "seconds": seconds}
    return StageRecord(name, stage, "made", "", manifest=Manifest(**fields), uri=str(home / name))


def evaluated(home: Path, model: str, right: dict[str, float] | None, text: str) -> StageRecord:
    """The evaluation of a model that answered one prompt."""
    sample = {"title": "Hi (right)", "text": text, "prompt": "Hi", "verdict": "right"}
    metrics = {"task_accuracy": {"value": 0.5, "n": 2, "standard_error": 0.5}}
    outcomes = None if right is None else {"task_accuracy": right}
    return record(home, f"evaluate-{model}", "evaluate", 1.0, Counts(metrics=metrics, samples=[sample]), outcomes)


@pytest.fixture
def stages(tmp_path: Path) -> list[StageRecord]:
    """Two phases, an SFT and a DPO model; the SFT model answers two of three tasks that the base model fails."""
    base, sft = {"a": 0.0, "b": 0.0, "c": 0.0}, {"a": 1.0, "b": 1.0, "c": 0.0}
    made = {"pretrain-64": ("pretrain", 5.0), "pretrain-128": ("pretrain", 7.0)}
    made |= {name: (name, 10.0) for name in ("instruct", "pairs", "reward", "prefer")}
    trained = [record(tmp_path, name, stage, seconds, Counts()) for name, (stage, seconds) in made.items()]
    return [
        *trained,
        evaluated(tmp_path, "pretrain-64", base, "x"),
        evaluated(tmp_path, "base", base, "y"),
        evaluated(tmp_path, "sft", sft | {"new": 1.0}, "z"),
        evaluated(tmp_path, "dpo", None, "z"),
    ]


def test_each_model_stands_with_its_own_stages_and_its_gain(stages: list[StageRecord]) -> None:
    """Costs are those of the stages that made the model from the one before; gains are paired by example."""
    phase, base, sft, dpo = gains(stages, usd_per_hour=3.6)
    assert (phase["stages"], phase["seconds"], phase["gains"]) == (["pretrain-64"], 5.0, {})
    assert (base["against"], base["stages"], base["seconds"]) == ("pretrain-64", ["pretrain-128"], 7.0)
    assert base["gains"]["task_accuracy"] == {"value": 0.0, "n": 3, "standard_error": 0.0}
    assert (sft["against"], sft["seconds"], sft["usd"]) == ("base", 10.0, 0.01)
    assert sft["gains"]["task_accuracy"] == {
        "value": pytest.approx(2 / 3),
        "n": 3,
        "standard_error": pytest.approx(1 / 3),
    }
    assert (dpo["stages"], dpo["seconds"], dpo["gains"]) == (["pairs", "reward", "prefer"], 30.0, {})


def test_answers_to_one_prompt_stand_together(stages: list[StageRecord]) -> None:
    """In the order of the road; what one model alone was asked is left out."""
    (row,) = answers(stages)
    assert row["prompt"] == "Hi" and list(row["answers"]) == ["pretrain-64", "base", "sft", "dpo"]
    assert row["answers"]["base"] == {"text": "y", "verdict": "right"}
    assert answers(stages[:7]) == []


def test_metrics_of_one_kind_stand_together_with_gaps_where_a_model_lacks_them() -> None:
    """A length that only later models reach stands behind the shorter ones; n counts examples."""
    value = {"value": 1, "n": 4}
    found = comparison({"base": {"a/256": value, "b": value}, "sft": {"a/256": value, "b": value, "a/512": value}})
    assert found["models"] == ["base", "sft"]
    assert found["rows"] == [("a/256", 4, [value, value]), ("a/512", 4, [None, value]), ("b", 4, [value, value])]
