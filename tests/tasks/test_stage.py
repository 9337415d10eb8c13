"""Stages: what is cached, what is made again and why, on disk, after faults and in a race."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from data_curation.settings import InputError, StageError
from tasks.run import Run, RunConfig
from tests.tasks.conftest import Road
from tests.tasks.toys import SeedConfig, SortConfig


def states(run: Run) -> dict[str, str]:
    """Stage name -> state."""
    return {record.name: record.state for record in run.stages}


def whys(run: Run) -> dict[str, str]:
    """Stage name -> why it ran."""
    return {record.name: record.why for record in run.stages}


def test_second_run_is_cached(road: Road):
    """The same configuration over the same inputs makes nothing again and gives the same digests."""
    first, second = road(), road()
    assert states(first) == {"seed": "made", "sort": "made"}
    assert states(second) == {"seed": "cached", "sort": "cached"}
    assert [record.digest for record in first.stages] == [record.digest for record in second.stages]


def test_changed_field_makes_its_stage_and_dependants(road: Road):
    """A field whose change reaches the output makes its stage and what reads it, and says which field."""
    road()
    changed = road(SeedConfig(numbers=[5, 4]))
    assert states(changed) == {"seed": "made", "sort": "made"}
    assert whys(changed) == {"seed": "field seed.numbers [3, 1, 2] -> [5, 4]", "sort": "input numbers changed"}


def test_early_cut_off(road: Road):
    """A stage made again with identical bytes in the part that is read leaves what follows cached."""
    road()
    assert states(road(SeedConfig(comment="new"))) == {"seed": "made", "sort": "cached"}


def test_refresh_makes_a_new_attempt(road: Road):
    """A refresh makes a new attempt, adopts nothing, and equal bytes leave the rest cached."""
    first = road()
    again = road(refresh=frozenset({"seed"}))
    assert states(again) == {"seed": "made", "sort": "cached"}
    assert (first.stages[0].attempt, again.stages[0].attempt) == (1, 2)
    assert road(refresh=frozenset({"sort"})).stages[1].manifest.counts.warnings == ["adopted"]  # its own first piece


@pytest.mark.parametrize("damage", ["missing", "shorter"])
def test_damaged_file_is_noticed(road: Road, tmp_path: Path, damage: str):
    """A deleted or truncated file makes that stage again, names the file, and leaves the rest cached."""
    first = road()
    path = Path(first.stages[0].uri) / "numbers" / "numbers.json"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    again = road()
    assert states(again) == {"seed": "made", "sort": "cached"}
    assert "numbers/numbers.json" in whys(again)["seed"]
    assert states(road()) == {"seed": "cached", "sort": "cached"}


def test_damaged_gpu_stage_is_not_made_again_in_silence(road: Road):
    """What a GPU made does not come out with the same bytes again: the run stops, and --remake lets it go on."""
    uri = Path(road().stages[0].uri)
    manifest = json.loads((uri / "manifest.json").read_text())
    manifest["machine"]["device"] = "NVIDIA H100"
    (uri / "manifest.json").write_text(json.dumps(manifest))
    (uri / "numbers" / "numbers.json").unlink()
    with pytest.raises(
        StageError, match=r"seed: file numbers/numbers\.json is missing.* on NVIDIA H100.*--remake seed"
    ):
        road()
    assert states(road(remake=frozenset({"seed"}))) == {"seed": "made", "sort": "cached"}


def test_flipped_byte_of_an_input_is_refused(road: Road):
    """A file with the right size and other bytes is not read: the error names it."""
    first = road()
    path = Path(first.stages[0].uri) / "numbers" / "numbers.json"
    path.write_bytes(path.read_bytes().replace(b"3", b"4"))
    with pytest.raises(InputError, match=r"numbers\.json: damaged"):
        road(sort_config=SortConfig(descending=True))


def test_transient_error_is_retried_and_pieces_adopted(road: Road, tmp_path: Path):
    """A transient error is tried again in a new attempt that goes on with the complete pieces of the first."""
    run = road(sort_config=SortConfig(fail="transient", mended=str(tmp_path / "mended")))
    assert states(run)["sort"] == "made"
    assert run.stages[1].attempt == 2
    assert Path(run.stages[1].uri, "sorted", "first.json").exists()


def test_input_error_fails_at_once(road: Road, tmp_path: Path):
    """Damaged input is not tried again, and its words reach the caller."""
    with pytest.raises(InputError, match=r"sort: numbers\.json: line 1 is damaged: restore the file"):
        road(sort_config=SortConfig(fail="input", mended=str(tmp_path / "never")))
    attempts = next((tmp_path / "store" / "sort").iterdir())
    assert [path.name for path in attempts.iterdir()] == ["1"]


def test_killed_child_is_retried(road: Road, tmp_path: Path):
    """A child that dies without a word is tried again, and then the error says how it ended."""
    from data_curation.settings import TransientError

    with pytest.raises(TransientError, match="signal 9"):
        road(sort_config=SortConfig(fail="kill", mended=str(tmp_path / "never")))
    attempts = next((tmp_path / "store" / "sort").iterdir())
    assert sorted(path.name for path in attempts.iterdir()) == ["1", "2"]


def test_time_limit_ends_the_stage(road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A stage over its limit is ended with its process group, and the error names the setting."""
    monkeypatch.setattr(RunConfig.model_fields["hours"], "default", {"sort": 0.0003})
    RunConfig.model_rebuild(force=True)
    try:
        with pytest.raises(StageError, match=r"time limit .* raise run\.hours\.sort"):
            road(sort_config=SortConfig(fail="hang", mended=str(tmp_path / "never")))
    finally:
        monkeypatch.undo()
        RunConfig.model_rebuild(force=True)


def test_killed_run_goes_on(road: Road, tmp_path: Path):
    """After kill -9 of a whole run, the next run has its stages cached, adopts pieces and ends with equal bytes."""
    store, mended = str(tmp_path / "store"), tmp_path / "mended"
    script = (
        "import sys; from tasks.run import Run, RunConfig, running; from tasks.store import Store\n"
        "from tests.tasks.conftest import seed, sort; from tests.tasks.toys import SeedConfig, SortConfig\n"
        "from prefect import flow\n"
        f"run = Run('toy', {{}}, RunConfig(store={store!r}), Store({store!r}), 'make')\n"
        f"config = SortConfig(fail='hang', mended={str(mended)!r})\n"
        "def body():\n"
        "    with running(run):\n"
        "        sort(config, numbers=seed(SeedConfig()))\n"
        "flow(name='toy')(body)()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(Path.cwd())})
    work = tmp_path / "store" / "sort"
    while not list(work.glob("*/1/work/pieces/first.json")):
        assert process.poll() is None
        threading.Event().wait(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    mended.touch()
    run = road(sort_config=SortConfig(fail="hang", mended=str(mended)))
    assert states(run) == {"seed": "cached", "sort": "made"}
    assert (run.stages[1].attempt, run.stages[1].manifest.counts.warnings) == (2, ["adopted"])
    unbroken = road(sort_config=SortConfig(fail="hang", mended=str(mended)), store=str(tmp_path / "other"))
    assert unbroken.stages[1].digest == run.stages[1].digest


def test_racing_runs_make_one_artifact(road: Road, tmp_path: Path):
    """Two runs that want one stage end with one attempt; the one that waits says for whom."""
    mended = tmp_path / "mended"
    config = SortConfig(fail="hang", mended=str(mended))
    script = f"""
import json, sys
from prefect import flow
from tasks.run import Run, RunConfig, running
from tasks.store import Store
from tests.tasks.conftest import seed, sort
from tests.tasks.toys import SeedConfig, SortConfig
run = Run("toy", {{}}, RunConfig(store={str(tmp_path / "store")!r}), Store({str(tmp_path / "store")!r}), "make")
def body():
    with running(run):
        sort(SortConfig.model_validate_json({config.model_dump_json()!r}), numbers=seed(SeedConfig()))
flow(name="race")(body)()
print(json.dumps([record.state for record in run.stages]))
"""
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    processes: list[subprocess.Popen[bytes]] = []
    for log in logs:
        with log.open("wb") as output:
            environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
            processes.append(
                subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=output, stderr=output)
            )
    while not any("waiting for sort" in log.read_text() for log in logs):
        assert all(process.poll() is None for process in processes), [log.read_text() for log in logs]
        threading.Event().wait(0.05)
    mended.touch()
    assert [process.wait() for process in processes] == [0, 0]
    outcomes = [json.loads(next(line for line in log.read_text().splitlines() if line.startswith("["))) for log in logs]
    assert sorted(outcome[1] for outcome in outcomes) == ["cached", "made"]
    assert any("makes it" in log.read_text() for log in logs)
    attempts = next((tmp_path / "store" / "sort").iterdir())
    assert [path.name for path in attempts.iterdir()] == ["1"]


def test_plan_says_why_and_predicts_cut_off(road: Road):
    """A plan runs nothing, names the changed field, and marks what follows as `if-changed`."""
    assert states(road(mode="plan")) == {"seed": "run", "sort": "run"}
    assert whys(road(mode="plan")) == {"seed": "never made", "sort": "never made"}
    road()
    assert states(road(mode="plan")) == {"seed": "cached", "sort": "cached"}
    planned = road(SeedConfig(comment="new"), mode="plan")
    assert states(planned) == {"seed": "run", "sort": "if-changed"}
    assert whys(planned) == {"seed": "field seed.comment  -> new", "sort": "only if the output of seed changes"}


def test_why_is_said_against_the_same_preset(road: Road):
    """A newer run of another preset, whose name holds this one's, says nothing of what changed here."""
    road()
    other = road(SeedConfig(numbers=[7]), preset="my-toy-too")
    assert "-toy-" in other.id
    assert whys(road(SeedConfig(numbers=[5]), mode="plan"))["seed"] == "field seed.numbers [3, 1, 2] -> [5]"


def test_undeclared_part_is_refused(road: Road):
    """A stage sees only the parts it declared, so no input can escape the key."""
    artifact = road().stages[0].manifest.artifact("seed", "")
    with pytest.raises(KeyError, match="not among the declared inputs"):
        artifact.only(("numbers",)).part("decisions")


def test_states_are_named_in_prefect(road: Road, prefect_api: str):
    """Prefect's task runs carry the stage's name and the states Made and Cached, with an arrow between them."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.client.schemas.sorting import FlowRunSort

    road()
    road()
    with get_client(sync_client=True) as client:
        newest = client.read_flow_runs(limit=1, sort=FlowRunSort.START_TIME_DESC)[0]
        runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[newest.id])))
    by_name = {run.name: run for run in runs}
    assert {name: run.state_name for name, run in by_name.items()} == {"seed": "Cached", "sort": "Cached"}
    arrows = [item.id for values in by_name["sort"].task_inputs.values() for item in values if hasattr(item, "id")]
    assert by_name["seed"].id in arrows
