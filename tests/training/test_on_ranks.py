"""Guarantees of alignment on several ranks: the steps and the loss of one, resumed on any number, one model folder."""

import json
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.place import Place
from data_curation.settings import ConfigError, Settings, StageError
from tests.training.conftest import DIALOGUES, artifact, coins, parquet
from training.instruct import InstructConfig, instruct
from training.on_ranks import Work, on_ranks
from training.prefer import PreferConfig, prefer
from training.reinforce import ReinforceConfig, reinforce
from training.reward import RewardConfig, reward

# TRL 1.16 (trl/models/utils.py) reads the old names of what transformers 5.23 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`.*gradient_checkpointing.*` is deprecated:FutureWarning")
TAUGHT = InstructConfig(
    learning_rate=5e-3, seq_len=96, batch_size=4, epochs=3, warmup=0.05, held_out_tasks=10, max_new_tokens=4
)
PREFERRED = PreferConfig(learning_rate=1e-3, likelihood=0.5, batch_size=16, epochs=2, max_new_tokens=4)
REWARDED = RewardConfig(learning_rate=1e-3, batch_size=16, prompts=8, best_of=2, max_new_tokens=4)
REINFORCED = ReinforceConfig(
    steps=4, prompts_per_step=8, samples=4, learning_rate=3e-3, warmup=0, max_new_tokens=4, easiest=1, hardest=0
)
Run = Callable[[Place], Counts]


@pytest.fixture
def dialogues(tmp_path: Path) -> Artifact:
    """Coin tasks, rows of which fill whole steps."""
    splits = {"train": coins(0, 120), "dev": coins(120, 136), "test": coins(200, 220)}
    files = {split: {"00000.parquet": parquet(rows, DIALOGUES)} for split, rows in splits.items()}
    return artifact("dialogues", tmp_path / "dialogues", files)


@pytest.fixture
def runs(coin_model: Artifact, dialogues: Artifact, pairs: Artifact, unfit: Artifact) -> dict[str, Run]:
    """The stages that train, by name."""
    return {
        "instruct": lambda place: instruct(TAUGHT, coin_model, dialogues, place),
        "adapters": lambda place: instruct(TAUGHT.model_copy(update={"lora_rank": 2}), coin_model, dialogues, place),
        "reward": lambda place: reward(REWARDED, coin_model, pairs, place),
        "prefer": lambda place: prefer(PREFERRED, coin_model, pairs, unfit, place),
        "reinforce": lambda place: reinforce(REINFORCED, coin_model, dialogues, unfit, place),
    }


def losses(place: Place, plot: str = "loss") -> list[list[float]]:
    """(step, loss) of a finished training."""
    return next(iter(json.loads(Path(place.home, "records", f"plot-{plot}.json").read_text())["series"].values()))


def weights(place: Place) -> torch.Tensor:
    """Of the published model, all in one."""
    found = load_file(Path(place.home) / "model" / "model.safetensors")
    return torch.cat([found[name].flatten() for name in sorted(found)])


@pytest.mark.parametrize("stage", ["instruct", "adapters", "reward", "prefer"])
def test_two_ranks_take_the_steps_of_one(runs: dict[str, Run], stage: str, new_place: Callable[..., Place]) -> None:
    """As many steps, losses and weights within rounding, the same files and counts; no process is left."""
    one, two = new_place("one", micro_batch_tokens=2 * 96), new_place("two", ranks=2, micro_batch_tokens=2 * 96)
    before = set(psutil.Process().children(recursive=True))
    counts = [runs[stage](place) for place in (one, two)]
    assert set(psutil.Process().children(recursive=True)) <= before
    assert len(losses(one)) > 1
    assert [step for step, _ in losses(two)] == [step for step, _ in losses(one)]
    assert [loss for _, loss in losses(two)] == pytest.approx([loss for _, loss in losses(one)], rel=1e-4)
    assert weights(two) == pytest.approx(weights(one), abs=1e-4)
    files = [sorted(path.name for path in Path(place.home, "model").iterdir()) for place in (one, two)]
    assert files[0] == files[1]
    assert counts[0].taken == counts[1].taken and counts[0].made == counts[1].made


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="two GPUs are needed")
@pytest.mark.parametrize("stage", ["instruct", "reward", "prefer"])
def test_two_gpus_take_the_steps_of_one(runs: dict[str, Run], stage: str, new_place: Callable[..., Place]) -> None:
    """With as many passes a step; one process uses one GPU though it sees both. Losses agree as bfloat16 does."""
    given = {"device": "cuda", "micro_batch_tokens": 2 * 96}
    one, two = new_place("one", **given), new_place("two", ranks=2, **given)
    for place in (one, two):
        runs[stage](place)
    assert [step for step, _ in losses(two)] == [step for step, _ in losses(one)]
    assert [loss for _, loss in losses(two)] == pytest.approx([loss for _, loss in losses(one)], rel=0.05)


def test_samples_are_the_ranks_own(runs: dict[str, Run], new_place: Callable[..., Place]) -> None:
    """Reinforcement takes as many steps on two ranks, with samples of their own; the reward rises all the same."""
    place = new_place("two", ranks=2)
    runs["reinforce"](place)
    rewards = losses(place, "reward")
    assert [step for step, _ in rewards] == [1, 2, 3, 4]
    assert rewards[-1][1] > rewards[0][1] + 0.2


@pytest.mark.parametrize(("first", "then"), [(2, 2), (2, 1)])
def test_a_checkpoint_goes_on_with_as_many_ranks_and_with_one(
    coin_model: Artifact, dialogues: Artifact, first: int, then: int, new_place: Callable[..., Place]
) -> None:
    """Two ranks keep one checkpoint; the rest of the steps leads to the weights of an unbroken training."""
    config = TAUGHT.model_copy(update={"epochs": 1})  # few steps, so that the last ones still move the weights
    passes = {"micro_batch_tokens": 2 * 96}
    whole = new_place("whole", ranks=first, checkpoint_seconds=0, **passes)
    again = new_place("again", ranks=then, **passes)
    instruct(config, coin_model, dialogues, whole)
    expected = weights(whole)
    kept = [piece for piece in whole.pieces() if piece.name.startswith("checkpoint")]
    assert len(kept) == 2
    for piece in whole.pieces():
        if piece.name not in ("before", kept[0].name):
            whole.drop(piece)
    assert again.adopt(whole.home) == ["before", kept[0].name]
    instruct(config, coin_model, dialogues, again)
    assert weights(again) == pytest.approx(expected, abs=1e-5)


def test_a_step_that_ranks_cannot_share_is_refused(runs: dict[str, Run], new_place: Callable[..., Place]) -> None:
    """Both numbers are named, as the stage's own error."""
    with pytest.raises(ConfigError, match=r"run\.resources\.ranks is 3: a step of 4 sequences does not go evenly"):
        runs["instruct"](new_place("three", ranks=3))


@pytest.mark.parametrize(
    ("stage", "ranks"),
    [("instruct", 2), ("adapters", 1), ("reward", 1), ("prefer", 1), ("reinforce", 1)],
)
def test_activations_computed_again_change_nothing(
    runs: dict[str, Run], stage: str, ranks: int, new_place: Callable[..., Place]
) -> None:
    """`run.resources.recompute` leads to the same weights within rounding."""
    kept, again = new_place("kept", ranks=ranks), new_place("again", ranks=ranks, recompute=True)
    for place in (kept, again):
        runs[stage](place)
    assert weights(again) == pytest.approx(weights(kept), abs=1e-5)


def fill_the_gpu(config: Settings, work: Work, place: Place) -> None:
    """A training for which there is no room: torch's own words."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore words")


@pytest.mark.parametrize(("ranks", "nodes"), [(1, 1), (2, 1), (1, 2)])
def test_a_full_gpu_is_named_with_its_remedies(
    ranks: int, nodes: int, tmp_path: Path, new_place: Callable[..., Place]
) -> None:
    """An error of the stage, not of the world, here and on ranks; fewer ranks than nodes train here."""
    work = Work(tmp_path, Dataset.from_dict({"input_ids": [[1]]}), Counts())
    wanted = r"full: its passes do not fit.*micro_batch_tokens.*run\.resources\.recompute \(CUDA.*2\.00 GiB\.\)"
    with pytest.raises(StageError, match=wanted):
        on_ranks(fill_the_gpu, TAUGHT, work, new_place("full", ranks=ranks, nodes=nodes))
