"""Guarantees under kills: at any moment, of any rank, training goes on to the bytes of an unbroken run."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from data_curation.artifact import Artifact
from data_curation.place import Place
from data_curation.settings import TransientError
from tests.training.phases import config, digests, losses, published, taken, when_saved
from training.phases import Phase
from training.pretrain import PhaseRun, pretrain
from training.state import State
from training.step import Trainer

STEPS = 24


def run(steps: int = STEPS, learning_rate: float = 1e-2) -> PhaseRun:
    """One phase of so many steps."""
    return config(phases=[Phase(seq_len=32, tokens=steps * 256, learning_rate=learning_rate)]).run_of(0)


def test_kills_at_random_moments_change_no_byte(
    shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place], tmp_path: Path
) -> None:
    """Killed at steps and amid background writes, each next attempt adopts what is complete; in the end model, state
    and the records of all steps are those of an unbroken run."""
    unbroken = new_place("unbroken")
    pretrain(run(), shards, tokenizer, None, unbroken)
    chance, homes = random.Random(0), []
    for number, what in enumerate(("write", "step", "write", "write")):
        place = new_place(f"attempt-{number}", checkpoint_seconds=0)
        adopted = [name for home in reversed(homes) for name in place.adopt(home)]
        assert bool(adopted) == bool(homes)
        at = chance.randrange(1, 6) if what == "step" else chance.randrange(100, 500)  # about 90 writes a checkpoint
        spec = tmp_path / "spec.json"
        spec.write_text(
            json.dumps(
                {
                    "what": what, "at": at, "run": run().model_dump(mode="json"), "home": place.home,
                    "scratch": str(place.scratch), "resources": place.resources.model_dump(mode="json"),
                    "shards": shards.home, "tokenizer": tokenizer.home,
                }
            )
        )  # fmt: skip
        assert subprocess.run([sys.executable, "-m", "tests.training.killed", str(spec)]).returncode == -signal.SIGKILL
        homes.append(place.home)
    last = new_place("last")
    for home in reversed(homes):
        last.adopt(home)
    pretrain(run(), shards, tokenizer, None, last)
    assert digests(published(last)) == digests(published(unbroken))
    assert taken(last) == taken(unbroken)
    assert [record["step"] for record in taken(last)] == list(range(STEPS))


def test_an_interrupted_training_in_a_bucket_goes_on(
    shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place], bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On s3 the next attempt adopts checkpoints by the server's own copies and ends with the bytes of one on disk."""
    unbroken, local = new_place("unbroken"), new_place("there", checkpoint_seconds=0)
    pretrain(run(), shards, tokenizer, None, unbroken)
    broken, again = (Place(f"{bucket}/{n}", local.scratch, local.resources, local.name) for n in (1, 2))
    step = Trainer.step

    def stop(trainer: Trainer, state: State) -> None:
        if state.step == 7:
            raise KeyboardInterrupt
        step(trainer, state)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Trainer, "step", stop)
        pretrain(run(), shards, tokenizer, None, broken)
    assert again.adopt(broken.home) == ["checkpoint-000000", "checkpoint-000006", "checkpoint-000007"]
    pretrain(run(), shards, tokenizer, None, again)
    assert digests(published(again)) == digests(published(unbroken))
    assert [piece.name for piece in again.pieces()] == ["model"]


def ranks() -> dict[str, psutil.Process]:
    """This process's ranks by their number."""
    found: dict[str, psutil.Process] = {}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it may be gone
            if (number := process.environ().get("RANK")) is not None:
                found[number] = process
    return found


def kill_rank(rank: int) -> None:
    """kill -9 of one of this process's ranks."""
    with suppress(KeyError, psutil.Error):  # it may be gone
        ranks()[str(rank)].kill()


def test_ranks_killed_one_by_one_change_no_byte(
    shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place]
) -> None:
    """Either of two ranks may be killed; none is left, and two go on to the bytes of an unbroken run of two."""
    unbroken, place = new_place("unbroken", ranks=2), new_place("broken", ranks=2, checkpoint_seconds=0)
    pretrain(run(), shards, tokenizer, None, unbroken)
    for rank, step in ((1, 3), (0, 9)):
        with (
            when_saved(place, step, lambda rank=rank: kill_rank(rank)),
            pytest.raises(TransientError, match="a rank of 2 ended without a word"),
        ):
            pretrain(run(), shards, tokenizer, None, place)
        assert not ranks()
    pretrain(run(), shards, tokenizer, None, place)
    assert digests(published(place)) == digests(published(unbroken))
    assert taken(place) == taken(unbroken)


def test_a_checkpoint_of_copies_goes_on_with_other_ranks(
    shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place]
) -> None:
    """Four ranks that hold two copies of the weights are killed; one rank and four of one copy end as one unbroken."""
    unbroken, broken = new_place("unbroken"), new_place("broken", ranks=4, shard_ranks=2, checkpoint_seconds=0)
    pretrain(run(), shards, tokenizer, None, unbroken)
    with when_saved(broken, 3, lambda: kill_rank(3)), pytest.raises(TransientError):
        pretrain(run(), shards, tokenizer, None, broken)
    for number in (1, 4):
        again = new_place(f"again-{number}", ranks=number)
        assert again.adopt(broken.home)
        pretrain(run(), shards, tokenizer, None, again)
        assert losses(again) == pytest.approx(losses(unbroken), rel=2e-5)


def test_sigterm_saves_two_ranks_and_one_goes_on(
    shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place]
) -> None:
    """SIGTERM to the launcher reaches the ranks, who save and end; one rank takes over the same samples."""
    # The ranks look twice a second for the wish to end; at a high rate rounding would grow over so many steps.
    long = run(steps=8 * STEPS, learning_rate=1e-3)
    one, two = new_place("one"), new_place("two", ranks=2, checkpoint_steps=5)
    pretrain(long, shards, tokenizer, None, one)
    with (
        when_saved(two, 5, lambda: os.kill(os.getpid(), signal.SIGTERM)),
        pytest.raises(TransientError, match=r"two: SIGTERM ended it after step \d+"),
    ):
        pretrain(long, shards, tokenizer, None, two)
    two.resources = one.resources
    pretrain(long, shards, tokenizer, None, two)
    assert losses(two) == pytest.approx(losses(one), rel=2e-5)
    assert [(r["labels"], r["bytes"]) for r in taken(two)] == [(r["labels"], r["bytes"]) for r in taken(one)]
