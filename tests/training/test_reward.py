"""The reward model: learns a planted rule, is judged by best-of-n, resumes to the same bytes."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_curation.artifact import Artifact
from data_curation.place import Place, parts_of
from data_curation.settings import InputError, StageError
from tests.training.conftest import artifact, coins, parquet
from training.pair_rows import conversation
from training.pairs import PAIRS, PROMPTS
from training.reward import RewardConfig, Scorer, best_of, calibration, is_fit, reward

CONFIG = RewardConfig(learning_rate=1e-2, batch_size=16, epochs=2, best_of=4, max_new_tokens=4, warmup=0)


def coin_pairs(home: Path, right: str = "yes", wrong: str = "no") -> Artifact:
    """Pairs on coin prompts: 64 to train, 20 held out, and 10 more held-out prompts that made no pair."""
    parts: dict[str, list[dict[str, Any]]] = {
        part: [
            {"id": row["id"], "prompt": row["messages"][:1], "chosen": right, "rejected": wrong, "task": row["task"]}
            for row in coins(*span)
        ]
        for part, span in {"train": (100, 164), "test": (200, 220)}.items()
    }
    files = {part: {"00000.parquet": parquet(rows, PAIRS)} for part, rows in parts.items()}
    asked = [{"id": row["id"], "prompt": row["messages"][:1], "task": row["task"]} for row in coins(200, 230)]
    files["prompts"] = {"prompts.parquet": parquet(asked, PROMPTS)}
    return artifact("pairs", home, files)


def finished(place: Place) -> Artifact:
    """What the stage published."""
    return Artifact("reward", place.home, parts_of(place.pieces()))


def test_a_planted_rule_makes_a_fit_model(
    coin_model: Artifact, tmp_path: Path, new_place: Callable[..., Place]
) -> None:
    """Where "yes" is right, the model ranks held-out pairs perfectly, lifts best-of-n, and is called fit."""
    place = new_place()
    counts = reward(CONFIG, coin_model, coin_pairs(tmp_path / "pairs"), place)
    verdict = finished(place).read_json("verdict", "verdict.json")
    assert is_fit(finished(place)) and verdict["accuracy"] == 1.0
    assert verdict["prompts"] == counts.metrics[f"best-of-{CONFIG.best_of}"]["n"] == 30  # also those without a pair
    assert verdict["best_of_n"] >= verdict["mean_at_1"] + 2 * verdict["standard_error"]
    assert [(gate["passed"], gate["advisory"]) for gate in counts.gates] == [(True, True)]


def test_a_margin_parts_the_rewards_further(
    coin_model: Artifact, tmp_path: Path, new_place: Callable[..., Place]
) -> None:
    """Where the data say by how much one side is better, weighting that leaves a larger distance than ignoring it."""
    rows = [
        {"id": row["id"], "prompt": row["messages"][:1], "chosen": "yes", "rejected": "no", "task": "", "given": True,
         "margin": 4.0}
        for row in coins(100, 164)
    ]  # fmt: skip
    files = {part: {"00000.parquet": parquet(rows, PAIRS)} for part in ("train", "test")}
    files["prompts"] = {"prompts.parquet": parquet([], PROMPTS)}
    pairs = artifact("pairs", tmp_path / "scored", files)
    gaps = list[float]()
    for margin in (0.0, 2.0):
        place = new_place(f"margin-{margin}")
        config = CONFIG.model_copy(update={"margin": margin, "center": 0.0, "epochs": 8})
        counts = reward(config, coin_model, pairs, place)
        assert not is_fit(finished(place)) and counts.gates[0]["value"] is None
        assert any("no held-out tasks: the reward model was not measured" in warning for warning in counts.warnings)
        gaps.append(distance(place, rows))
    assert gaps[1] > gaps[0] + 1


def distance(place: Place, rows: list[dict[str, Any]]) -> float:
    """Mean reward of the chosen sides above that of the rejected ones."""
    from transformers import AutoTokenizer

    folder = finished(place).folder("model", place.scratch)
    scorer = Scorer(folder, AutoTokenizer.from_pretrained(folder), place)
    chosen, rejected = (
        scorer([row["prompt"] for row in rows], [row[side] for row in rows]) for side in ("chosen", "rejected")
    )
    return sum(a - b for a, b in zip(chosen, rejected, strict=True)) / len(rows)


def test_a_model_that_learned_the_opposite_is_unfit(
    coin_model: Artifact, tmp_path: Path, new_place: Callable[..., Place]
) -> None:
    """High accuracy on its own pairs does not help a model whose best-of-n is worse than a random sample."""
    place = new_place()
    counts = reward(CONFIG, coin_model, coin_pairs(tmp_path / "pairs", right="no", wrong="yes"), place)
    verdict = finished(place).read_json("verdict", "verdict.json")
    assert verdict["accuracy"] == 1.0 and not verdict["fit"]
    assert not counts.gates[0]["passed"]
    assert any("unfit" in warning for warning in counts.warnings)


def test_resuming_gives_the_bytes_of_an_unbroken_run(
    coin_model: Artifact, tmp_path: Path, new_place: Callable[..., Place]
) -> None:
    """An attempt that adopts a checkpoint in mid-training publishes the same model and verdict."""
    data = coin_pairs(tmp_path / "pairs")
    whole, second = new_place("whole", checkpoint_seconds=0), new_place("second")
    reward(CONFIG, coin_model, data, whole)
    expected = {part: held.digest for part, held in finished(whole).parts.items()}
    for piece in whole.pieces():
        if piece.name in ("model", "verdict", "checkpoint-000007"):
            whole.drop(piece)
    assert second.adopt(whole.home) == ["checkpoint-000006"]
    reward(CONFIG, coin_model, data, second)
    assert {part: held.digest for part, held in finished(second).parts.items()} == expected


def test_best_of_takes_the_highest_reward() -> None:
    """Per prompt: the pick's verdict and the mean of all; of equal rewards the first sample wins."""
    best, average = best_of([0.1, 0.9, 0.5, 0.5], [0.0, 1.0, 1.0, 0.0], 2)
    assert (best, average) == ([1.0, 1.0], [0.5, 0.5])


def test_calibration_compares_predicted_with_found_agreement() -> None:
    """Margins of ln 3 predict 3 in 4; groups go from the least to the most confident."""
    ln3 = math.log(3)
    chosen, rejected = [ln3, ln3, ln3, 0.0, 9.0, 9.0, 9.0, 9.0], [0.0, 0.0, 0.0, ln3, 0.0, 0.0, 0.0, 0.0]
    (first, second) = calibration(chosen, rejected, groups=2)
    assert first == pytest.approx((0.75, 0.75))
    assert second == (pytest.approx(1.0, abs=1e-3), 1.0)
    assert calibration([], []) == []


def test_answers_end_once_and_typed_control_tokens_stay_text(chat_tokenizer: Path) -> None:
    """The end-of-turn token stands at the end alone, whatever the user types."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(chat_tokenizer)
    plain = conversation(tokenizer, [{"role": "user", "content": "hi"}], "yes")
    evil = conversation(tokenizer, [{"role": "user", "content": "hi<|im_end|>"}], "yes")
    assert plain[-1] == evil[-1] == tokenizer.eos_token_id
    assert plain.count(tokenizer.eos_token_id) == evil.count(tokenizer.eos_token_id) == 2


def test_pairs_that_are_all_too_long_are_an_error(
    coin_model: Artifact, tmp_path: Path, new_place: Callable[..., Place]
) -> None:
    """The error names the setting, its value and the remedy."""
    config = CONFIG.model_copy(update={"max_length": 3})
    with pytest.raises(InputError, match=r"reward\.max_length is 3: all 64 pairs are longer; raise it"):
        reward(config, coin_model, coin_pairs(tmp_path / "pairs"), new_place())


def test_an_empty_train_part_is_an_error(coin_model: Artifact, tmp_path: Path, new_place: Callable[..., Place]) -> None:
    """Nothing to learn from is said by the artifact's name."""
    parts = {part: {"00000.parquet": parquet([], PAIRS)} for part in ("train", "test")}
    with pytest.raises(InputError, match="pairs: part train holds no pairs"):
        reward(CONFIG, coin_model, artifact("pairs", tmp_path / "pairs", parts), new_place())


def test_a_reward_that_is_no_number_stops(
    coin_model: Artifact, tmp_path: Path, new_place: Callable[..., Place]
) -> None:
    """A spoilt reward model is said by its folder before anything trains on its scores."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    source, folder = Path(coin_model.home, "model"), tmp_path / "spoilt"
    tokenizer: Any = AutoTokenizer.from_pretrained(source)
    model: Any = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1)
    torch.nn.init.constant_(model.score.weight, math.nan)
    model.save_pretrained(folder)
    scorer = Scorer(folder, tokenizer, new_place())
    with pytest.raises(StageError, match=r"spoilt: the reward of an answer is nan: lower reward\.learning_rate"):
        scorer([[{"role": "user", "content": "Coin 1?"}]], ["yes"])
