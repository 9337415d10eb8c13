"""`tokenmill runs`, `show`, `verify` and `prune` as they are typed, on a planted store."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from data_curation.files import write_bytes
from flows.cli import main
from tasks.lease import Lease
from tasks.run import Run, RunConfig
from tasks.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three runs, the oldest first, and what a killed stage of each has left."""
    store = Store(str(tmp_path / "store"))
    for number in range(3):
        run = Run("toy", {}, RunConfig(store=store.root), store, "make", id=f"20260101-00000{number}-toy-0000")
        run.save("completed" if number else "failed", "" if number else "the world ended")
        lease = replace(Lease.new(run.id), pid=2**22 + 1)
        write_bytes(store.uri("seed", str(number) * 64, "1", "lease.json"), json.dumps(asdict(lease)).encode())
    return store


def said(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """The JSON that a command prints."""
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_marks_are_shown_and_prune_honours_them(store: Store, capsys: pytest.CaptureFixture[str]):
    """`runs --keep` marks a run and says so; `prune` leaves what it reaches, dry by default, and names kept runs."""
    first, second, third = reversed(store.runs())
    listed = said(capsys, "runs", "--store", store.root, "--keep", first)
    assert [(one["run"], one["kept"]) for one in listed] == [(third, False), (second, False), (first, True)]
    words = ("prune", "--store", store.root, "--keep", "1", "--days", "0")
    assert [Path(one["uri"]).parent.name[0] for one in said(capsys, *words)["would_remove"]] == ["1"]
    done = said(capsys, *words, "--apply")
    assert [Path(one["uri"]).parent.name[0] for one in done["removed"]] == ["1"]
    assert done["kept"] == [third, first]
    assert not any(one["kept"] for one in said(capsys, "runs", "--store", store.root, "--release", first))
    assert said(capsys, *words, "--apply")["kept"] == [third]


def test_days_are_thirty_unless_said(store: Store, capsys: pytest.CaptureFixture[str]):
    """Without `--days` the runs of a month stay, however few of the newest are kept."""
    assert said(capsys, "prune", "--store", store.root, "--keep", "0")["would_remove"] == []


def test_tables_are_for_people(store: Store, capsys: pytest.CaptureFixture[str]):
    """What a person reads names runs, states, marks, errors and bytes."""
    runs = store.runs()
    assert main(["runs", "--store", store.root, "--keep", runs[0]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == [runs[0], "toy", "completed", "0", "kept"]
    assert lines[3].endswith("the world ended")
    assert main(["show", "--store", store.root, runs[2]]) == 0
    assert "state   failed the world ended" in capsys.readouterr().out
    assert main(["prune", "--store", store.root, "--keep", "0", "--days", "0"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith("MB in 2 places; kept runs: 1; --apply removes them")
    assert main(["verify", "--store", store.root]) == 0
    assert capsys.readouterr().out == "every artifact is whole\n"


@pytest.mark.parametrize("command", ["runs", "show", "verify", "prune"])
def test_a_store_that_is_not_there_is_no_empty_store(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A wrong path is an error, not a store without runs."""
    assert main([command, "--store", str(tmp_path / "nowhere")]) == 2
    assert "run.store: there is no store at" in capsys.readouterr().err
