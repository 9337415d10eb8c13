"""Online training: rises from its own step 0, counts only answers that end, resumes to the same bytes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_curation.place import Artifact, Place, parts_of
from data_curation.settings import InputError
from tests.training.conftest import DIALOGUES, artifact, coins, parquet
from training.reinforce import ReinforceConfig, reinforce, verifier_reward

# TRL 1.16 (trl/models/utils.py) reads the old name of what transformers 5.23 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
CONFIG = ReinforceConfig(
    steps=8, prompts_per_step=8, samples=4, learning_rate=3e-3, warmup=0, beta=0.001, max_new_tokens=4
)


@pytest.fixture
def dialogues(tmp_path: Path) -> Artifact:
    """Coin tasks: 32 to train, 40 held out."""
    parts = {"train": coins(100, 132), "dev": coins(200, 240), "test": coins(300, 301)}
    files = {part: {"00000.parquet": parquet(rows, DIALOGUES)} for part, rows in parts.items()}
    return artifact("dialogues", tmp_path / "dialogues", files)


@pytest.fixture
def unfit(tmp_path: Path) -> Artifact:
    """A reward model that must not be used: its part `model` would not even load."""
    files = {"model": {"config.json": b"{}"}, "verdict": {"verdict.json": b'{"fit": false}'}}
    return artifact("reward", tmp_path / "reward", files)


def test_rewarded_answers_become_the_greedy_ones(
    coin_model: Artifact, dialogues: Artifact, unfit: Artifact, new_place: Callable[..., Place]
) -> None:
    """Sampled reward ends near 1, held-out greedy accuracy at 1, and KL, entropy and shares are kept for plots."""
    place = new_place()
    counts = reinforce(CONFIG, coin_model, dialogues, unfit, place)
    assert counts.metrics["greedy accuracy at the end"]["value"] == 1.0
    assert counts.metrics["kl, last tenth"]["value"] > 0
    reward = json.loads(Path(place.home, "records", "plot-reward.json").read_text())["series"]["verifier"]
    assert [step for step, _ in reward] == [float(step) for step in range(1, 9)]
    assert reward[-1][1] > 0.9 > reward[0][1]
    assert {path.stem for path in Path(place.home, "records").iterdir()} == {
        "plot-reward", "plot-kl", "plot-entropy", "plot-shares"
    }  # fmt: skip


def test_no_training_fails_the_gate(
    coin_model: Artifact, dialogues: Artifact, unfit: Artifact, new_place: Callable[..., Place]
) -> None:
    """With a learning rate of next to nothing the gain over step 0 is 0, shown as a failed gate."""
    config = CONFIG.model_copy(update={"learning_rate": 1e-12, "steps": 1})
    counts = reinforce(config, coin_model, dialogues, unfit, new_place())
    assert counts.gates == [
        {"gate": "greedy accuracy gained, above 0 by 2 standard errors", "value": 0.0, "standard_error": 0.0,
         "against": 0.0, "passed": False}
    ]  # fmt: skip


def test_resuming_gives_the_bytes_of_an_unbroken_run(
    coin_model: Artifact, dialogues: Artifact, unfit: Artifact, new_place: Callable[..., Place]
) -> None:
    """An attempt that adopts a checkpoint in mid-training samples on as the unbroken run did."""
    whole, second = new_place("whole", checkpoint_seconds=0), new_place("second")
    reinforce(CONFIG, coin_model, dialogues, unfit, whole)
    expected = parts_of(whole.pieces())["model"].digest
    for piece in whole.pieces():
        if piece.name in ("model", "after", "checkpoint-000007"):
            whole.drop(piece)
    assert second.adopt(whole.home) == ["before", "checkpoint-000006"]
    counts = reinforce(CONFIG, coin_model, dialogues, unfit, second)
    assert parts_of(second.pieces())["model"].digest == expected
    assert counts.metrics["greedy accuracy at step 0"]["n"] == 40


def test_only_right_answers_that_end_are_rewarded() -> None:
    """A right answer that was cut before its end-of-turn token earns nothing."""
    rewarded = verifier_reward(eos_token_id=2)
    task = json.dumps({"family": "x", "checker": "number", "answer": "7"})
    answers = [[{"role": "assistant", "content": text}] for text in ("7", "7", "8")]
    assert rewarded(answers, [[5, 2], [5, 5], [6, 2]], [task] * 3) == [1.0, 0.0, 0.0]


def test_prompts_keep_typed_control_tokens_as_text(coin_model: Artifact, new_place: Callable[..., Place]) -> None:
    """The trainer is fed our encoding of the prompt, generation prompt included."""
    from transformers import AutoTokenizer

    from training.reinforce import encode_prompts

    tokenizer: Any = AutoTokenizer.from_pretrained(coin_model.uri("model"))
    ids = encode_prompts(tokenizer, [[{"role": "user", "content": "hi<|im_end|>"}]] * 2)
    assert ids[0] == ids[1] and ids[0].count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(ids[0]).endswith("<|im_start|>assistant\n")


def test_too_few_tasks_for_a_step_is_an_error(
    coin_model: Artifact, dialogues: Artifact, unfit: Artifact, new_place: Callable[..., Place]
) -> None:
    """The error names both numbers and the remedy."""
    config = CONFIG.model_copy(update={"prompts_per_step": 33})
    with pytest.raises(InputError, match=r"part train has 32 tasks, reinforce\.prompts_per_step is 33"):
        reinforce(config, coin_model, dialogues, unfit, new_place())
