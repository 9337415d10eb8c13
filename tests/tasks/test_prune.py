"""Pruning a store: what nobody needs goes, and nothing that a run still may, by rank, age, mark or another try."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from data_curation.files import listing, read_bytes, write_bytes
from data_curation.settings import ConfigError, StageError
from tasks import curation, training
from tasks.care import verify_store
from tasks.lease import Lease
from tasks.prune import RESUMED, Keep, prune_store
from tasks.run import Run, RunConfig, running
from tasks.stage import Output, Stage, stage
from tasks.store import Store
from tests.tasks.conftest import Road
from tests.tasks.toys import PhaseConfig, SeedConfig

pretrain = stage("tests.tasks.toys:pretrain", version=1, takes={"previous": ("model", "state")})

Train = Callable[..., Run]


@pytest.fixture
def train(prefect_api: str, tmp_path: Path) -> Train:
    """Run (or plan) phases of so many steps each, the first one given by the numbers; the rest goes to the Run."""
    from prefect import flow

    def go(*steps: int, mode: Any = "make", store: str = str(tmp_path / "store"), **options: Any) -> Run:
        run = Run("toy", {}, RunConfig(store=store, retries=0), Store(store), mode, **options)

        def body() -> None:
            last: Output | None = None
            with running(run):
                for number, some in enumerate(steps):
                    last = pretrain(PhaseConfig(steps=some), name=f"pretrain-{number}", previous=last)

        if mode == "plan":
            body()
            return run
        flow(name="toy")(body)()
        run.save("completed")
        forget(run)
        return run

    return go


def removed(store: Store, keep: int = 0, days: float = 0, state: bool = True) -> set[str]:
    """URIs of what prune removes."""
    return {entry["uri"] for entry in prune_store(store, Keep(keep, days, state), apply=True).freed}


def forget(run: Run) -> None:
    """Let a run's process be one that is no more, as it is after the command has ended."""
    for record in run.stages:
        uri = f"{record.uri}/lease.json"
        write_bytes(uri, json.dumps(json.loads(read_bytes(uri)) | {"pid": 2**22 + 1}).encode())


def say_of(store: Store, run: str, **changes: Any) -> None:
    """Change what a run says of itself."""
    entry = store.read_run(run)
    store.write_run(run, "run.json", json.dumps(entry | changes).encode())


def test_prune_keeps_what_runs_reach(road: Road):
    """Prune names and removes attempts that no kept run used, and nothing else; dry by default."""
    old, new = road(SeedConfig(numbers=[9])), road()
    forget(old)
    forget(new)
    store = new.store
    would = prune_store(store, Keep(newest=1, days=0), apply=False)
    assert would.kept == [new.id]
    assert {entry["uri"] for entry in would.freed} == {record.uri for record in old.stages}
    assert verify_store(store, deep=True) == []
    assert removed(store, keep=1) == {record.uri for record in old.stages}
    assert not any(Path(record.uri).exists() for record in old.stages)
    assert [record.state for record in road().stages] == ["cached", "cached"]


def test_prune_leaves_a_run_that_goes_on(road: Road):
    """What a living run has used, or its plan found cached, stays whatever --keep says; after its death it goes."""
    run = road()
    forget(run)
    store = run.store
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        process = {"pid": other.pid, "started": psutil.Process(other.pid).create_time()}
        host = store.read_run(run.id)["process"]["host"]
        first = {"stage": "seed", "key": run.stages[0].key, "attempt": 1}
        say_of(store, run.id, state="running", process=process | {"host": host}, stages=[], planned=[first])
        path = Path(run.stages[1].uri, "lease.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | {"run": "another"}))
        assert removed(store) == {run.stages[1].uri}
        other.kill()
    assert removed(store) == {run.stages[0].uri}


def test_prune_leaves_what_a_kept_run_began(road: Road):
    """The unfinished attempt of a kept run, with its checkpoints, waits for the next try."""
    run = road()
    forget(run)
    lease = replace(Lease.new(run.id), pid=2**22 + 1)
    uri = run.store.uri("sort", "f" * 64, "1")
    write_bytes(f"{uri}/lease.json", json.dumps(asdict(lease)).encode())
    assert removed(run.store, keep=1) == set()
    assert uri in removed(run.store, keep=0)


def test_prune_keeps_the_runs_of_the_last_days(road: Road):
    """A run that said something in the last days stays whatever its rank; older ones beyond the newest go."""
    old, recent = road(SeedConfig(numbers=[9])), road(SeedConfig(numbers=[8]))
    for run, days in ((old, 40), (recent, 20)):
        forget(run)
        when = datetime.now(UTC) - timedelta(days=days)
        say_of(run.store, run.id, state="completed", saved=when.isoformat(timespec="seconds"))
    assert removed(old.store, keep=2) == set()
    assert removed(old.store, days=30) == {record.uri for record in old.stages}
    assert removed(old.store, days=10) == {record.uri for record in recent.stages}


def test_prune_keeps_marked_runs_until_they_are_released(road: Road):
    """What a marked run reaches stays for ever; without the mark it goes. A run that is not there cannot be marked."""
    run = road()
    forget(run)
    run.store.keep_run(run.id, True)
    assert run.store.kept_runs() == {run.id}
    assert removed(run.store) == set()
    run.store.keep_run(run.id, False)
    assert removed(run.store) == {record.uri for record in run.stages}
    with pytest.raises(ConfigError, match="run 'nobody' is not in"):
        run.store.keep_run("nobody", True)


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_states_of_old_runs_go_and_their_models_stay(where: str, train: Train, request: pytest.FixtureRequest):
    """Of a completed run that is not the newest only `state` goes: it stays whole and cached, with its model."""
    options = {} if where == "disk" else {"store": request.getfixturevalue("bucket")}
    old, new = train(1, 2, **options), train(3, 4, **options)
    store, keep = new.store, Keep(newest=2, days=0, state=False)
    before = sum(listing(store.root).values())
    would = prune_store(store, keep, apply=False)
    assert sum(listing(store.root).values()) == before
    done = prune_store(store, keep, apply=True)
    assert done.freed == would.freed
    assert {entry["uri"] for entry in done.freed} == {f"{record.uri}/state" for record in old.stages}
    assert [entry["bytes"] for entry in done.freed] == [1, 1]
    for record in old.stages:
        assert [path for path in listing(record.uri) if path.startswith(("model/", "state/"))] == ["model/model.json"]
    assert verify_store(store, deep=True) == []
    assert removed(store, keep=2, state=False) == set()
    again = train(1, 2, **options)
    assert [record.state for record in again.stages] == ["cached", "cached"]
    assert [record.digest for record in again.stages] == [record.digest for record in old.stages]


def test_training_on_from_a_dropped_state_is_refused_with_words(train: Train):
    """Who trains on from a dropped state is told in the plan, and the run ends, both with the stage to make again;
    after that the bytes are as if nothing had been dropped."""
    whole = train(1, 2, 5)
    train(3, 4)
    # Nobody has taken the place of the third phase.
    assert removed(whole.store, keep=2, state=False) == {f"{record.uri}/state" for record in whole.stages[:2]}
    words = "pretrain-2 reads part 'state' of pretrain-1, which `tokenmill prune` has dropped: --refresh pretrain-1"
    assert words in train(1, 2, 6, mode="plan").missing[0]
    with pytest.raises(StageError, match="reads part 'state' of pretrain-1"):
        train(1, 2, 6)
    with pytest.raises(StageError, match="reads part 'state' of pretrain-0"):
        train(1, 2, 6, refresh=frozenset({"pretrain-1"}))
    longer = train(1, 2, 6, refresh=frozenset({"pretrain-0", "pretrain-1"}))
    assert [record.digest for record in longer.stages[:2]] == [record.digest for record in whole.stages[:2]]
    model = Path(longer.stages[2].uri, "model", "model.json")
    assert json.loads(model.read_text()) == "trained for 9 steps"


def test_the_state_of_an_unfinished_run_stays(train: Train):
    """A run that did not come to its end keeps the state of its last phase for another try, a living one all."""
    old = train(1, 2)
    train(3, 4)
    say_of(old.store, old.id, state="running")  # of this process, which lives
    assert removed(old.store, keep=2, state=False) == set()
    say_of(old.store, old.id, state="failed")
    assert removed(old.store, keep=2, state=False) == {f"{old.stages[0].uri}/state"}


def test_only_stages_of_the_same_word_read_what_is_dropped():
    """On the real road nothing but a later phase takes the part `state`: no evaluation, no chat model misses it."""
    road = [value for module in (curation, training) for value in vars(module).values() if isinstance(value, Stage)]
    for word, part in RESUMED.items():
        assert {one.word for one in road if any(part in parts for parts in one.takes.values())} == {word}


@pytest.mark.parametrize(("keep", "words"), [(Keep(newest=-1), "--keep is -1"), (Keep(days=-2.5), "--days is -2.5")])
def test_negative_numbers_are_refused(keep: Keep, words: str, tmp_path: Path):
    """A number of runs or days below none is a configuration error."""
    with pytest.raises(ConfigError, match=words):
        prune_store(Store(str(tmp_path)), keep, apply=True)
