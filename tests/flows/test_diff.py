"""Guarantees of `tokenmill diff`: what differs between two runs is named, side by side, and nothing else."""

import json
from pathlib import Path

import pytest

from flows.diff import compare
from tasks.run import Run
from tests.tasks.conftest import Road, road
from tests.tasks.toys import SeedConfig

__all__ = ["road"]


def other(road: Road, **config: object) -> Run:
    """One more run of the toy road, its configuration recorded."""
    run = road(SeedConfig.model_validate(config))
    run.config = {"seed": SeedConfig.model_validate(config).model_dump()}
    run.save("completed")
    return run


def test_config_data_and_metrics(road: Road) -> None:
    """Changed settings, digests and counts of both sides; equal data is marked so, and equal settings are left out."""
    left, right = other(road, numbers=[3, 1]), other(road, numbers=[3, 1, 2, 5])
    answer = compare(left.store, left.id, right.id)
    assert answer["config"] == [{"setting": "seed.numbers", "left": [3, 1], "right": [3, 1, 2, 5]}]
    seed, sort = answer["data"]
    assert (seed["stage"], seed["same"], sort["same"]) == ("seed", False, False)
    assert (seed["left"]["out"], seed["right"]["out"]) == ({"numbers": 2}, {"numbers": 4})
    assert [seed[side]["digest"] for side in ("left", "right")] == [run.stages[0].digest for run in (left, right)]
    same = compare(left.store, left.id, left.id)
    assert same["config"] == [] and all(one["same"] for one in same["data"])


def test_a_stage_of_one_side_alone(road: Road, tmp_path: Path) -> None:
    """A stage that was pruned or never reached is there with one side; metrics and gates stand with both values."""
    left, right = other(road, numbers=[3, 1]), other(road, numbers=[3, 1, 2])
    for run, value in ((left, 0.25), (right, 0.5)):
        path = Path(run.stages[1].uri, "manifest.json")
        manifest = json.loads(path.read_text())
        figure = {"value": value, "standard_error": None}
        manifest["counts"]["metrics"] = {"loss": figure | {"n": 3}}
        manifest["counts"]["gates"] = [figure | {"gate": "loss", "against": 0.3, "passed": value < 0.3}]
        path.write_text(json.dumps(manifest))
    Path(left.stages[0].uri, "manifest.json").unlink()
    answer = compare(left.store, left.id, right.id)
    seed = next(one for one in answer["data"] if one["stage"] == "seed")
    assert seed["left"] is None and seed["right"] is not None and not seed["same"]
    (metric,), (gate,) = answer["metrics"], answer["gates"]
    assert (metric["left"]["value"], metric["right"]["value"]) == (0.25, 0.5)
    assert (gate["left"]["passed"], gate["right"]["passed"]) == (True, False)


def test_an_unknown_run_is_named(road: Road) -> None:
    """The message says where the runs are listed."""
    run = road()
    with pytest.raises(Exception, match=r"run 'nobody' is not in .* `tokenmill runs` lists them"):
        compare(run.store, run.id, "nobody")
