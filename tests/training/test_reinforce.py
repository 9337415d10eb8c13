"""Online training: rises from its own step 0, counts only answers that end, resumes to the same bytes."""

import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.place import Place, parts_of
from data_curation.settings import ConfigError, InputError
from tests.training.conftest import DIALOGUES, artifact, coins, parquet
from training import sampler
from training.curriculum import prompt_order, teachable
from training.reinforce import ReinforceConfig, encode_prompts, reinforce, verifier_reward
from training.sampler import Sampler

# TRL 1.16 (trl/models/utils.py) reads the old name of what transformers 5.23 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
CONFIG = ReinforceConfig(
    steps=8,
    prompts_per_step=8,
    samples=4,
    learning_rate=3e-3,
    warmup=0,
    beta=0.001,
    max_new_tokens=4,
    easiest=1,
    hardest=0,
)


@pytest.fixture
def dialogues(tmp_path: Path) -> Artifact:
    """Coin tasks: 32 to train, 40 held out."""
    parts = {"train": coins(100, 132), "dev": coins(200, 216), "test": coins(300, 340)}
    files = {part: {"00000.parquet": parquet(rows, DIALOGUES)} for part, rows in parts.items()}
    return artifact("dialogues", tmp_path / "dialogues", files)


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_rewarded_answers_become_the_greedy_ones(
    coin_model: Artifact, dialogues: Artifact, unfit: Artifact, new_place: Callable[..., Place], algorithm: str
) -> None:
    """Sampled reward ends near 1, held-out greedy accuracy at 1, and KL, entropy and shares are kept for plots."""
    place = new_place()
    counts = reinforce(CONFIG.model_copy(update={"algorithm": algorithm}), coin_model, dialogues, unfit, place)
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
         "n": 40, "against": 0.0, "passed": False}
    ]  # fmt: skip


def test_answers_by_a_graph_train_as_those_of_generate(
    coin_model: Artifact, dialogues: Artifact, unfit: Artifact, new_place: Callable[..., Place],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What samples on a GPU, here on a CPU in float32: the same model bytes, and nothing of it is kept afterwards."""
    usual, by_graph = new_place("usual"), new_place("graph")
    reinforce(CONFIG, coin_model, dialogues, unfit, usual)
    made: list[weakref.ref[Sampler]] = []

    def sampler_of(model: Any, longest: int) -> Sampler:
        one = Sampler(model, longest, torch.float32)
        made.append(weakref.ref(one))
        return one

    monkeypatch.setattr(sampler, "device_of", lambda place: "cuda")
    monkeypatch.setattr(sampler, "Sampler", sampler_of)
    reinforce(CONFIG, coin_model, dialogues, unfit, by_graph)
    assert len(made) == 1 and made[0]() is None
    digests = [parts_of(place.pieces())["model"].digest for place in (usual, by_graph)]
    assert digests[0] == digests[1]


def test_vllm_is_refused_without_a_gpu(
    coin_model: Artifact, dialogues: Artifact, unfit: Artifact, new_place: Callable[..., Place]
) -> None:
    """Before anything is measured."""
    place = new_place()
    with pytest.raises(ConfigError, match="sampler is vllm, which samples on a GPU only"):
        reinforce(CONFIG.model_copy(update={"sampler": "vllm"}), coin_model, dialogues, unfit, place)
    assert place.pieces() == []


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
    assert second.adopt(whole.home) == ["before", "checkpoint-000006", "known"]
    counts = reinforce(CONFIG, coin_model, dialogues, unfit, second)
    assert parts_of(second.pieces())["model"].digest == expected
    assert counts.metrics["greedy accuracy at step 0"]["n"] == 40


def test_a_fit_reward_model_is_a_second_reward(
    coin_model: Artifact, dialogues: Artifact, tmp_path: Path, new_place: Callable[..., Place]
) -> None:
    """Its rewards are drawn beside the verifier's and enter with their weight."""
    from tests.training.test_reward import CONFIG as REWARD
    from tests.training.test_reward import coin_pairs
    from training.reward import reward

    judge, place = new_place("judge"), new_place()
    reward(REWARD, coin_model, coin_pairs(tmp_path / "pairs"), judge)
    fit = Artifact("reward", judge.home, parts_of(judge.pieces()))
    reinforce(CONFIG.model_copy(update={"steps": 2}), coin_model, dialogues, fit, place)
    drawn = json.loads(Path(place.home, "records", "plot-reward.json").read_text())["series"]
    assert sorted(drawn) == ["reward model", "verifier"]
    assert all(value != 0 for _, value in drawn["reward model"])


def test_only_right_answers_that_end_are_rewarded() -> None:
    """A right answer that was cut before its end-of-turn token earns nothing."""
    rewarded = verifier_reward(eos_token_id=2)
    task = json.dumps({"family": "x", "checker": "number", "answer": "7"})
    answers = [[{"role": "assistant", "content": text}] for text in ("7", "7", "8")]
    assert rewarded(answers, [[5, 2], [5, 5], [6, 2]], [task] * 3) == [1.0, 0.0, 0.0]


def test_prompts_keep_typed_control_tokens_as_text(coin_model: Artifact) -> None:
    """The trainer is fed our encoding of the prompt, generation prompt included."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(coin_model.uri("model"))
    ids = encode_prompts(tokenizer, [[{"role": "user", "content": "hi<|im_end|>"}]] * 2)
    assert ids[0] == ids[1] and ids[0].count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(ids[0]).endswith("<|im_start|>assistant\n")


def test_solved_and_hopeless_families_are_not_trained_on() -> None:
    """Families outside the range at step 0 are dropped and counted; where too few are left all stay, with a warning."""
    config = ReinforceConfig(prompts_per_step=1, easiest=0.9, hardest=0.1)

    def tasks(*families: str) -> list[dict[str, Any]]:
        return [{**coins(0, 1)[0], "task": json.dumps({"family": family})} for family in families]

    held, train, counts = tasks("a", "b", "c", "c"), tasks("a", "b", "c", "c", "new"), Counts()
    kept = teachable(config, train, held, [1.0, 0.0, 1.0, 0.0], counts)
    assert [json.loads(row["task"])["family"] for row in kept] == ["c", "c", "new"]
    assert {row["reason"]: row["documents"] for row in counts.funnel} == {
        "family above easiest": 1, "family below hardest": 1
    }  # fmt: skip
    assert teachable(config, train[:2], held, [1.0, 0.0, 1.0, 0.0], counts) == train[:2]
    assert counts.warnings


def test_the_order_of_prompts_is_new_in_every_epoch() -> None:
    """Each epoch holds every task once; equal seeds give equal orders, and a longer training begins like a shorter."""
    config = ReinforceConfig(steps=3, prompts_per_step=4)
    order = prompt_order(5, config)
    assert len(order) == 12
    assert sorted(order[:5]) == sorted(order[5:10]) == list(range(5)) and order[:5] != order[5:10]
    assert prompt_order(5, config.model_copy(update={"steps": 4}))[:12] == order
    assert prompt_order(5, config.model_copy(update={"seed": 1})) != order


def test_a_prompt_longer_than_the_context_is_counted(
    coin_model: Artifact, unfit: Artifact, tmp_path: Path, new_place: Callable[..., Place]
) -> None:
    """A task whose prompt leaves no room for an answer is not trained on and has its reason in the funnel."""
    train = coins(100, 132)
    train[0]["messages"][0]["content"] = "Coin? " * 200
    parts = {"train": train, "dev": [], "test": coins(300, 310)}
    files = {part: {"00000.parquet": parquet(rows, DIALOGUES)} for part, rows in parts.items()}
    data = artifact("dialogues", tmp_path / "long", files)
    counts = reinforce(CONFIG.model_copy(update={"steps": 1}), coin_model, data, unfit, new_place())
    assert [(row["reason"], row["documents"]) for row in counts.funnel] == [("prompt longer than the context", 1)]


def test_too_few_tasks_for_a_step_is_an_error(
    coin_model: Artifact, dialogues: Artifact, unfit: Artifact, new_place: Callable[..., Place]
) -> None:
    """The error names both numbers and the remedy."""
    config = CONFIG.model_copy(update={"prompts_per_step": 33})
    with pytest.raises(InputError, match=r"part train has 32 tasks that .* reinforce\.prompts_per_step is 33"):
        reinforce(config, coin_model, dialogues, unfit, new_place())


def test_prompts_that_leave_no_room_are_an_error(
    coin_model: Artifact, dialogues: Artifact, unfit: Artifact, new_place: Callable[..., Place]
) -> None:
    """Where that is all of them; the setting that asks for the room is named."""
    config = CONFIG.model_copy(update={"max_new_tokens": 9999})
    with pytest.raises(InputError, match=r"has 0 tasks .* 32 whose prompts leave no room for reinforce.max_new_tokens"):
        reinforce(config, coin_model, dialogues, unfit, new_place())
