"""Guarantees of the win rate: planted rewards come out, an unfit judge judges nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from data_curation.artifact import Artifact
from data_curation.place import Place
from tests.training.conftest import DIALOGUES, artifact, coins, parquet
from tests.training.phases import published
from tests.training.test_evaluate import TEXTS, chat, heldout
from training.evaluate import EvaluateConfig, evaluate
from training.measures import mean
from training.win_rate import HeldoutAnswer, mean_rewards, win_rate

CONFIG = EvaluateConfig(max_new_tokens=4, needles=0, refusals=False, samples=1)


@pytest.fixture(scope="module")
def judge_model(tiny_model: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model with random weights."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(1)
    source = Path(tiny_model.uri("model"))
    model: Any = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1)
    torch.nn.init.normal_(model.score.weight)
    folder = tmp_path_factory.mktemp("judge") / "model"
    model.save_pretrained(folder)
    return folder


def judge(home: Path, model: Path, fit: bool) -> Artifact:
    """The stage `reward` with this verdict."""
    files = {path.name: path.read_bytes() for path in model.iterdir()}
    return artifact("reward", home, {"model": files, "verdict": {"verdict.json": json.dumps({"fit": fit}).encode()}})


def test_wins_ties_and_losses_are_counted_by_kind() -> None:
    """One win, one tie by equal answers, one by equal rewards, one loss; what only one side answered is left out."""
    mine = [
        HeldoutAnswer(name, "task", name, reward) for name, reward in (("a", 2.0), ("b", 1.0), ("c", 0.5), ("d", -1.0))
    ]
    others = [
        HeldoutAnswer("a", "task", "x", 1.0),
        HeldoutAnswer("b", "task", "b", 0.999),
        HeldoutAnswer("c", "task", "y", 0.5),
        HeldoutAnswer("d", "task", "z", 0.0),
        HeldoutAnswer("e", "task", "e", 9.0),
    ]
    found = win_rate([*mine, HeldoutAnswer("f", "chat", "f", 0.0)], others)
    assert found == {"win_rate/task": mean([1.0, 0.5, 0.5, 0.0]), "win_rate_ties/task": mean([0.0, 1.0, 1.0, 0.0])}
    turned = win_rate(others, mine)
    assert turned["win_rate/task"]["value"] == 1 - found["win_rate/task"]["value"]
    assert mean_rewards(mine) == {"reward/task": mean([2.0, 1.0, 0.5, -1.0])}
    assert mean_rewards([HeldoutAnswer("a", "task", "x")]) == {}


def test_models_are_judged_against_the_sft_model_and_only_by_a_fit_judge(
    tiny_model: Artifact, coin_model: Artifact, judge_model: Path, new_place: Callable[..., Place], tmp_path: Path
) -> None:
    """The rate follows from rewards that a plain forward pass gives; unfit, it is said and nothing is judged."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = Path(tiny_model.uri("model"))
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    shards = heldout(tmp_path / "shard", tokenizer, folder, TEXTS)
    rows = coins(0, 6) + [chat(number) for number in range(5)]
    chats = artifact("dialogues", tmp_path / "chats", {"test": {"00000.parquet": parquet(rows, DIALOGUES)}})
    fit, unfit = (judge(tmp_path / name, judge_model, name == "fit") for name in ("fit", "unfit"))

    def measured(name: str, model: Artifact, reward: Artifact, sft: Artifact | None) -> tuple[Any, Place]:
        place = new_place(name)
        return evaluate(CONFIG, model, shards, chats, None, place, reward=reward, sft=sft), place

    first, sft = measured("sft", coin_model, fit, None)
    second, dpo = measured("dpo", tiny_model, fit, published(sft))
    again, _ = measured("again", coin_model, fit, published(sft))
    assert first.metrics["reward/task"]["n"] == 6 and "win_rate/task" not in first.metrics
    assert again.metrics["win_rate/task"]["value"] == again.metrics["win_rate/chat"]["value"] == 0.5
    assert again.metrics["win_rate_ties/chat"]["value"] == 1.0

    scorer: Any = AutoModelForSequenceClassification.from_pretrained(judge_model).eval()
    prompts = {row["id"]: row["messages"][:-1] for row in rows}
    wins: dict[str, list[float]] = {"task": [], "chat": []}
    sides = [pq.read_table(Path(place.home, "answers", "answers.parquet")).to_pylist() for place in (dpo, sft)]
    for one, other in zip(*sides, strict=True):
        rewards: list[float] = []
        for side in (one, other):
            messages = [*prompts[side["id"]], {"role": "assistant", "content": side["answer"]}]
            ids = tokenizer.apply_chat_template(messages)["input_ids"]
            with torch.no_grad():
                rewards.append(float(scorer(torch.tensor([ids])).logits[0, 0]))
            assert side["reward"] == pytest.approx(rewards[-1], abs=1e-4)
        wins[one["kind"]].append(float(rewards[0] > rewards[1]))
    assert second.metrics["win_rate/task"] == mean(wins["task"])
    assert second.metrics["win_rate/chat"] == mean(wins["chat"])

    silent, place = measured("silent", tiny_model, unfit, published(sft))
    assert not any(name.startswith(("win_rate", "reward")) for name in silent.metrics)
    assert any("unfit" in warning for warning in silent.warnings)
    assert {row["reward"] for row in pq.read_table(Path(place.home, "answers", "answers.parquet")).to_pylist()} == {
        None
    }
    assert [sample["verdict"] for sample in second.samples] in (["right", ""], ["wrong", ""])
