"""Care of a store: prune takes what nobody needs, and nothing that a run still may."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from data_curation.files import write_bytes
from data_curation.settings import ConfigError
from tasks.care import prune_store, verify_store
from tasks.lease import Lease
from tasks.run import Run
from tasks.store import Store
from tests.tasks.conftest import Road
from tests.tasks.toys import SeedConfig


def removed(store: Store, keep: int = 0) -> set[str]:
    """URIs of what prune removes."""
    return {entry["uri"] for entry in prune_store(store, keep=keep, apply=True)}


def forget(run: Run) -> None:
    """Let a run's process be one that is no more, as it is after the command has ended."""
    for record in run.stages:
        path = Path(record.uri, "lease.json")
        lease = json.loads(path.read_text())
        path.write_text(json.dumps(lease | {"pid": 2**22 + 1}))


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
    would = prune_store(store, keep=1, apply=False)
    assert {entry["uri"] for entry in would} == {record.uri for record in old.stages}
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


def test_wrong_words_are_explained(tmp_path: Path):
    """A store that is not there is not whole, and a negative number of runs is none."""
    with pytest.raises(ConfigError, match="there is no store at"):
        verify_store(Store(str(tmp_path / "nowhere")), deep=False)
    with pytest.raises(ConfigError, match="--keep is -1"):
        prune_store(Store(str(tmp_path)), keep=-1, apply=True)
