"""Guarantees of several ranks: the batches and the loss curve of one, and none that outlives its launcher."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from data_curation.artifact import Artifact
from data_curation.place import Place, Resources
from data_curation.settings import ConfigError, StageError, TransientError
from tests.training.phases import CURVES, TINY, config, losses, published
from training import loop
from training.launch import launch, machine
from training.pretrain import pretrain


def children() -> set[int]:
    """Processes below this one."""
    return {process.pid for process in psutil.Process().children(recursive=True)}


def test_two_ranks_give_the_curve_of_one_and_hand_over_to_one(
    shards: Artifact,
    tokenizer: Artifact,
    new_place: Callable[..., Place],
) -> None:
    """Within the rounding of float32, in two passes each; the next phase goes on from model and optimizer on one."""
    one, two = new_place("one"), new_place("two", ranks=2, micro_batch_tokens=64)
    for place in (one, two):
        counts = pretrain(config().run_of(0), shards, tokenizer, None, place)
        assert counts.made == {"steps": 6}
        assert losses(place) == pytest.approx(CURVES["llama"], rel=2e-5)
    assert {name: len(part.files) for name, part in published(one).parts.items()} == {
        name: len(part.files) for name, part in published(two).parts.items()
    }
    after = [new_place(f"after-{number}") for number in range(2)]
    for place, before in zip(after, (one, two), strict=True):
        pretrain(config().run_of(1), shards, tokenizer, published(before), place)
    assert losses(after[1]) == pytest.approx(losses(after[0]), rel=2e-5)


@pytest.mark.parametrize(("ranks", "recompute"), [(2, "attention"), (4, "none")])
def test_ranks_that_share_rows_give_the_curve_of_one(
    ranks: int, recompute: Any, shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place]
) -> None:
    """Each has chunks of every row of packed documents; with four, two pairs share the rows among them, too."""
    place = new_place("shared", ranks=ranks, context_ranks=2, micro_batch_tokens=64)
    pretrain(config(recompute=recompute).run_of(0), shards, tokenizer, None, place)
    assert losses(place) == pytest.approx(CURVES["llama"], rel=2e-5)


@pytest.mark.parametrize(("shard_ranks", "context_ranks"), [(2, 1), (1, 4)])
def test_copies_of_shares_give_the_curve_of_one(
    shard_ranks: int, context_ranks: int, shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place]
) -> None:
    """Two copies on two ranks each, and four copies on ranks that share rows; with Muon, which takes shares apart."""
    chosen = config(optimizer="muon")
    one = new_place("one")
    given = {"shard_ranks": shard_ranks, "context_ranks": context_ranks, "micro_batch_tokens": 32}
    copies = new_place("copies", ranks=4, **given)
    for place in (one, copies):
        pretrain(chosen.run_of(0), shards, tokenizer, None, place)
    assert losses(copies) == pytest.approx(losses(one), rel=2e-5)


def test_a_checkpoint_of_one_rank_goes_on_with_two(
    shards: Artifact,
    tokenizer: Artifact,
    new_place: Callable[..., Place],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same samples follow, and the curve is that of an unbroken run."""
    broken, again = new_place("broken", checkpoint_seconds=0), new_place("again", checkpoint_seconds=0, ranks=2)
    step = loop.Trainer.step

    def stop(trainer: loop.Trainer, state: Any) -> None:
        if state.step == 3:
            raise KeyboardInterrupt
        step(trainer, state)

    model = TINY.model_copy(update={"family": "qwen3", "tie_embeddings": True})
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(loop.Trainer, "step", stop)
        pretrain(config(model=model).run_of(0), shards, tokenizer, None, broken)
    assert "checkpoint-000003" in again.adopt(broken.home)
    pretrain(config(model=model).run_of(0), shards, tokenizer, None, again)
    assert losses(again) == pytest.approx(CURVES["qwen3"], rel=2e-5)
    assert [piece.name for piece in again.pieces()] == ["model"]


def test_an_error_of_a_rank_is_that_of_the_stage(
    shards: Artifact,
    tokenizer: Artifact,
    new_place: Callable[..., Place],
) -> None:
    """Eight rows do not go evenly to three ranks: the setting is named, and no rank is left."""
    before = children()
    with pytest.raises(ConfigError, match=r"run\.resources\.ranks is 3: a step of 8 rows of 32 tokens"):
        pretrain(config().run_of(0), shards, tokenizer, None, new_place("three", ranks=3))
    assert children() == before


def test_a_fault_of_the_program_on_a_rank_is_not_tried_again(new_place: Callable[..., Place]) -> None:
    """What is no error of ours, such as a library's ValueError, ends the stage with its own words."""
    before = children()
    with pytest.raises(StageError, match=r"TypeError: .Place. object cannot be interpreted as an integer"):
        launch("builtins:int", {}, new_place("faulty", ranks=2))  # int({}, place)
    assert children() == before


@pytest.mark.parametrize("field", ["context_ranks", "shard_ranks"])
def test_ranks_that_make_no_whole_groups_are_refused(
    field: str, shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place]
) -> None:
    """Groups of two cannot be made of three ranks: said before any of them starts."""
    with pytest.raises(ConfigError, match=rf"{field} is 2, which does not divide run\.resources\.ranks \(3\)"):
        pretrain(config().run_of(0), shards, tokenizer, None, new_place("three", ranks=3, **{field: 2}))


def test_ranks_that_make_no_step_are_ended(
    shards: Artifact,
    tokenizer: Artifact,
    new_place: Callable[..., Place],
) -> None:
    """The error says how long nothing happened; it can be tried again, and no rank is left."""
    before = children()
    with pytest.raises(TransientError, match=r"hung: the 2 ranks have made no step for \d+ s and were ended"):
        pretrain(config().run_of(0), shards, tokenizer, None, new_place("hung", ranks=2, stall_seconds=1e-3))
    assert children() == before


WATCHING = """
import os, sys
from pathlib import Path
from training.rank import leave_with
leave_with(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
"""


def test_no_rank_survives_its_killed_launcher(tmp_path: Path) -> None:
    """A rank ends by itself when the process that started it all is gone."""
    launcher = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    rank = subprocess.Popen(
        [sys.executable, "-c", WATCHING, str(os.getpid()), str(launcher.pid), str(tmp_path / "asked")]
    )
    launcher.kill()
    assert rank.wait(timeout=60) == 1  # though nobody has waited for the launcher yet
    launcher.wait()


def test_a_rank_that_starts_after_torchrun_is_gone_ends(tmp_path: Path) -> None:
    """Its parent is then another process, the first one or not."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    words = [sys.executable, "-c", WATCHING, str(gone.pid), str(os.getpid()), str(tmp_path / "asked")]
    assert subprocess.run(words, timeout=60).returncode == 1


def test_torchrun_may_be_process_1_of_a_container(tmp_path: Path) -> None:
    """Two ranks whose parent it is, in process numbers and with a launcher that are not theirs, do their work."""
    resources = Resources(device="cpu", threads=1, ranks=2).model_dump(mode="json")
    spec = tmp_path / "ranks.json"
    spec.write_text(
        json.dumps(
            {
                "work": "tests.training.test_launch:outlive_two_looks", "given": {"parent": 1},
                "place": {"home": str(tmp_path), "scratch": str(tmp_path), "name": "contained"},
                "resources": resources, "launcher": {"machine": machine(), "process": os.getpid()},
            }
        )
    )  # fmt: skip
    inside = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("no right to make a namespace of process numbers")
    torchrun = [sys.executable, "-m", "training.torchrun", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*inside, *torchrun, "-m", "training.rank", str(spec)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.glob("done-*")) == ["done-0", "done-1"]


def outlive_two_looks(given: dict[str, Any], place: Place) -> None:
    """Work of a rank: its watch looks for its parent twice a second."""
    assert os.getppid() == given["parent"]
    threading.Event().wait(1.5)
    (place.scratch / f"done-{os.environ['RANK']}").touch()
