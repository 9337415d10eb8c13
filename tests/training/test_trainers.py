"""What the trainers of alignment tell of their steps while they work, and how they end when they are asked to."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from data_curation.artifact import Artifact
from data_curation.place import Place
from data_curation.settings import TransientError
from tests.training.conftest import DIALOGUES, artifact, coins, parquet
from tests.training.phases import when_saved
from training import trainers
from training.instruct import InstructConfig, instruct
from training.prefer import PreferConfig, prefer
from training.reinforce import ReinforceConfig, reinforce
from training.reward import RewardConfig, reward
from training.trainers import CheckpointPieces, longest_side

CONFIG = InstructConfig(learning_rate=5e-3, seq_len=96, batch_size=4, epochs=3, held_out_tasks=10, max_new_tokens=4)


@pytest.fixture
def dialogues(tmp_path: Path) -> Artifact:
    """Coin tasks."""
    splits = {"train": coins(0, 120), "dev": coins(200, 210), "test": coins(210, 220)}
    files = {split: {"00000.parquet": parquet(rows, DIALOGUES)} for split, rows in splits.items()}
    return artifact("dialogues", tmp_path / "dialogues", files)


def test_lines_of_progress_have_the_loss(
    tiny_model: Artifact, dialogues: Artifact, new_place: Callable[..., Place], capfd: pytest.CaptureFixture[str]
) -> None:
    """Every logged loss is told once, with the step after it; what a checkpoint remembers is told at the start."""
    whole = new_place("whole", checkpoint_seconds=0, log_seconds=0)
    again = new_place("again", log_seconds=0)
    instruct(CONFIG, tiny_model, dialogues, whole)
    for piece in whole.pieces():
        if piece.name in ("model", "after"):
            whole.drop(piece)
    told = [told_of(capfd)]
    again.adopt(whole.home)
    instruct(CONFIG, tiny_model, dialogues, again)
    told.append(told_of(capfd))
    history = json.loads((Path(whole.home) / "records/history.json").read_text())
    logged = [(row["step"], float(row["loss"])) for row in history if "loss" in row]
    steps = told[0][-1]["total"]
    values = [(line["done"] - 1, line["values"]["loss"]) for line in told[0] if "values" in line]
    assert values == [(step, pytest.approx(loss)) for step, loss in logged if step < steps]
    first = told[1][0]
    assert first["done"] == steps - 1
    assert first["curves"]["loss"] == [[step, pytest.approx(loss)] for step, loss in logged if step < steps]


@pytest.mark.parametrize("ranks", [1, 2])
def test_sigterm_saves_and_ends(
    tiny_model: Artifact, dialogues: Artifact, new_place: Callable[..., Place], ranks: int
) -> None:
    """The step is finished and kept; an attempt that adopts its checkpoint trains on to the unbroken run's model."""
    config = CONFIG.model_copy(update={"epochs": 10})  # the ranks look twice a second for the wish to end
    whole, again = (new_place(name, ranks=ranks) for name in ("whole", "again"))
    broken = new_place("broken", ranks=ranks, checkpoint_seconds=0)
    instruct(config, tiny_model, dialogues, whole)
    with (
        when_saved(broken, 2, lambda: os.kill(os.getpid(), signal.SIGTERM)),
        pytest.raises(TransientError, match=r"broken: SIGTERM ended it after step \d+; run it again") as told,
    ):
        instruct(config, tiny_model, dialogues, broken)
    step = int(str(told.value).split("step ")[1].split(";")[0])
    assert again.adopt(broken.home)[-1] == f"checkpoint-{step:06d}"
    instruct(config, tiny_model, dialogues, again)
    models = [load_file(Path(place.home) / "model/model.safetensors") for place in (again, whole)]
    assert all(torch.equal(models[0][name], weight) for name, weight in models[1].items())


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("stage", ["instruct", "reward", "reward, part of an epoch", "prefer", "reinforce"])
def test_sigterm_in_the_last_step_is_heard(
    stage: str, coin_model: Artifact, dialogues: Artifact, pairs: Artifact, unfit: Artifact,
    new_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It ends with a checkpoint from which no step is left; the next attempt has the unbroken run's model."""

    def work(place: Place) -> dict[str, torch.Tensor]:
        if stage == "instruct":
            instruct(CONFIG, coin_model, dialogues, place)
        elif stage.startswith("reward"):
            epochs = 0.5 if "part" in stage else 1
            reward(RewardConfig(epochs=epochs, batch_size=16), coin_model, pairs, place)
        elif stage == "prefer":
            prefer(PreferConfig(epochs=1), coin_model, pairs, unfit, place)
        else:
            few = {"prompts_per_step": 4, "samples": 4, "max_new_tokens": 4, "easiest": 1, "hardest": 0}
            config = ReinforceConfig(steps=3, warmup=0, learning_rate=1e-3, **few)
            reinforce(config, coin_model, dialogues, unfit, place)
        return load_file(Path(place.home) / "model/model.safetensors")

    whole, broken, again = (new_place(name) for name in ("whole", "broken", "again"))
    wanted = work(whole)
    heard = CheckpointPieces.on_step_end

    def ask(pieces: CheckpointPieces, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step == state.max_steps:
            os.kill(os.getpid(), signal.SIGTERM)
        heard(pieces, args, state, control, **more)

    with monkeypatch.context() as patch, pytest.raises(TransientError, match="SIGTERM ended it") as told:
        patch.setattr(CheckpointPieces, "on_step_end", ask)
        work(broken)
    step = int(str(told.value).split("step ")[1].split(";")[0])
    assert f"checkpoint-{step:06d}" in again.adopt(broken.home)
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointPieces, "on_step_end", lambda *_, **__: pytest.fail("a step was taken"))
        found = work(again)
    assert all(torch.equal(found[name], weight) for name, weight in wanted.items())


def told_of(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The lines of progress since the last look."""
    marked = [line for line in capfd.readouterr().out.splitlines() if line.startswith("@progress ")]
    return [json.loads(line.removeprefix("@progress ")) for line in marked]


def test_the_longest_side_has_its_prompt() -> None:
    """Where prompts are kept apart, as for `prefer`; rows of `reward` hold them on both sides."""
    answers = {"chosen_ids": [[1] * 4, [1] * 2], "rejected_ids": [[1], [1] * 7]}
    assert longest_side(Dataset.from_dict(answers)) == 7
    assert longest_side(Dataset.from_dict({"prompt_ids": [[1] * 9, [1] * 3], **answers})) == 13


# TRL 1.16 (trl/models/utils.py) reads the old name of what transformers 5.23 renamed.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("stage", ["reward", "prefer"])
def test_a_pass_is_filled_by_the_longest_pair(
    stage: str, coin_model: Artifact, pairs: Artifact, unfit: Artifact, new_place: Callable[..., Place],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Four such pairs fit into the tokens of a pass, however long the settings would let them be."""
    seen: list[Any] = []

    class SeenError(Exception):
        """Nothing has to be trained."""

    def look(trainer: Any, *rest: Any) -> None:
        seen.append(trainer)
        raise SeenError

    monkeypatch.setattr(trainers, "train", look)

    def rows_of_a_pass(tokens: int, name: str) -> int:
        place = new_place(name, micro_batch_tokens=tokens)
        with pytest.raises(SeenError):
            if stage == "reward":
                reward(RewardConfig(batch_size=16, max_length=900), coin_model, pairs, place)
            else:
                prefer(PreferConfig(batch_size=16, max_length=900), coin_model, pairs, unfit, place)
        return seen[-1].args.per_device_train_batch_size

    assert rows_of_a_pass(1, "first") == 1
    longest = longest_side(seen[0].train_dataset)
    assert 8 < longest < 100
    assert rows_of_a_pass(4 * 2 * longest, "four") == 4
    assert rows_of_a_pass(4 * 2 * longest - 1, "fewer") == 2
