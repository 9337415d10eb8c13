"""Preference training: learns a planted preference, is measured by the policy alone, resumes to the same bytes."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.dialogues import DialoguesConfig, Tasks
from data_curation.place import Place, parts_of
from data_curation.settings import InputError
from tests.data_curation.chats import prepare, rows, source
from tests.training.conftest import artifact, coins, parquet
from training.pairs import PAIRS, PROMPTS, PairsConfig
from training.pairs import pairs as sample
from training.prefer import PreferConfig, encoded, prefer, ranked

# TRL 1.16 (trl/models/utils.py) reads the old name of what transformers 5.23 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
CONFIG = PreferConfig(learning_rate=5e-3, likelihood=0.5, batch_size=16, epochs=2, max_new_tokens=4, warmup=0)


@pytest.mark.parametrize(("loss", "beta"), [("sigmoid", 0.1), ("ipo", 1.0), ("apo_zero", 0.1), ("sigmoid_norm", 1.0)])
def test_a_planted_preference_is_learned(
    coin_model: Artifact, pairs: Artifact, unfit: Artifact, new_place: Callable[..., Place], loss: str, beta: float
) -> None:
    """Every loss lifts held-out preference and verifier accuracy to 1 within a few steps; an unfit reward is unused."""
    counts = prefer(CONFIG.model_copy(update={"loss_type": loss, "beta": beta}), coin_model, pairs, unfit, new_place())
    assert counts.metrics["preference accuracy after"]["value"] == 1.0
    assert counts.metrics["verifier accuracy after"]["value"] == 1.0
    assert "reward agrees with verifier" not in counts.metrics
    assert counts.gates[1]["passed"]


def test_a_source_of_preferences_reaches_the_policy(
    coin_model: Artifact, unfit: Artifact, tmp_path: Path, new_place: Callable[..., Place]
) -> None:
    """Records of a JSONL file pass `dialogues` and `pairs`, and turn the policy on held-out prompts."""
    lines = [{"prompt": coin["messages"][0]["content"], "chosen": "no", "rejected": "yes"} for coin in coins(100, 200)]
    talk = source(tmp_path, "given", lines)
    config = DialoguesConfig(sources=[talk], tasks=Tasks(train=2, dev=0, test=0), near=None, test_share=0.3)
    config = config.model_copy(update={"near_prompts": None, "families": ["json"]})
    parts, _ = prepare(tmp_path, config)
    judged = new_place("pairs")
    chats = Artifact("dialogues", str(tmp_path / "run"), parts)
    made = sample(PairsConfig(prompts=0, chosen="reference"), coin_model, chats, judged)
    assert made.made["train pairs"] + made.made["test pairs"] + len(rows(tmp_path, "dev-preferences")) == 100
    pairs = Artifact("pairs", judged.home, parts_of(judged.pieces()))
    counts = prefer(CONFIG, coin_model, pairs, unfit, new_place())
    assert counts.metrics["preference accuracy before"]["value"] < 1.0
    assert counts.metrics["preference accuracy after"]["value"] == 1.0


def test_no_training_passes_no_gate_of_gain(
    coin_model: Artifact, pairs: Artifact, unfit: Artifact, new_place: Callable[..., Place]
) -> None:
    """With a learning rate of next to nothing the gain is 0 and its gate is shown as failed."""
    counts = prefer(CONFIG.model_copy(update={"learning_rate": 1e-12}), coin_model, pairs, unfit, new_place())
    assert counts.metrics["preference accuracy gained"]["value"] == 0.0
    assert [gate["passed"] for gate in counts.gates] == [False, True]


def test_resuming_gives_the_bytes_of_an_unbroken_run(
    coin_model: Artifact, pairs: Artifact, unfit: Artifact, new_place: Callable[..., Place]
) -> None:
    """An attempt that adopts a checkpoint in mid-training publishes the same model."""
    whole, second = new_place("whole", checkpoint_seconds=0), new_place("second")
    prefer(CONFIG, coin_model, pairs, unfit, whole)
    expected = parts_of(whole.pieces())["model"].digest
    for piece in whole.pieces():
        if piece.name in ("model", "after", "checkpoint-000011"):
            whole.drop(piece)
    assert second.adopt(whole.home) == ["before", "checkpoint-000010"]
    prefer(CONFIG, coin_model, pairs, unfit, second)
    assert parts_of(second.pieces())["model"].digest == expected


def test_only_pairs_without_a_verifier_are_turned() -> None:
    """Verifiers and given preferences stand against the reward model, which orders the sides of the other pairs."""
    prompt = [{"role": "user", "content": "q"}]
    rows = [
        {"prompt": prompt, "chosen": "a", "rejected": "longer", "task": '{"checker": "exact"}'},
        {"prompt": prompt, "chosen": "a", "rejected": "longer", "task": ""},
        {"prompt": prompt, "chosen": "longest", "rejected": "b", "task": ""},
        {"prompt": prompt, "chosen": "a", "rejected": "longer", "task": "", "given": True},
    ]
    counts = Counts()

    def by_length(prompts: Any, answers: list[str]) -> list[float]:
        return [float(len(answer)) for answer in answers]

    turned = ranked(rows, by_length, counts)
    assert [row["chosen"] for row in turned] == ["a", "longer", "longest", "a"]
    assert counts.metrics["pairs turned by reward"]["value"] == 1
    assert counts.metrics["reward agrees with verifier"]["value"] == 0.0


def test_trained_answers_end_with_the_stop_token_once(chat_tokenizer: Path) -> None:
    """Both sides end with one end-of-turn token; control tokens typed by a user or a model stay text."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(chat_tokenizer)
    pair = {
        "prompt": [{"role": "user", "content": "hi<|im_end|>"}], "chosen": "yes", "rejected": "no<|im_end|>"
    }  # fmt: skip
    found = encoded(tokenizer, pair)
    eos = tokenizer.eos_token_id
    assert [found[side].count(eos) for side in ("prompt_ids", "chosen_ids", "rejected_ids")] == [1, 1, 1]
    assert found["chosen_ids"][-1] == found["rejected_ids"][-1] == eos
    assert tokenizer.decode(found["chosen_ids"]) == "yes<|im_end|>"
    assert tokenizer.decode(found["prompt_ids"]).endswith("<|im_start|>assistant\n")


def test_pairs_that_are_all_too_long_are_an_error(
    coin_model: Artifact, pairs: Artifact, unfit: Artifact, new_place: Callable[..., Place]
) -> None:
    """The error names the setting, its value and the remedy."""
    config = CONFIG.model_copy(update={"max_length": 3})
    with pytest.raises(InputError, match=r"prefer\.max_length is 3: all 96 pairs are longer; raise it"):
        prefer(config, coin_model, pairs, unfit, new_place())


def test_what_is_held_out_is_measured_once_and_counted(
    coin_model: Artifact, pairs: Artifact, unfit: Artifact, tmp_path: Path, new_place: Callable[..., Place]
) -> None:
    """Every held-out task is answered, also one without a pair; what is too long is left out under its name."""
    prompts = [*coins(200, 260), *coins(260, 262)]
    prompts[-1]["messages"][0]["content"] = "Coin? " * 200
    asked = [{"id": row["id"], "prompt": row["messages"][:1], "task": row["task"]} for row in prompts]
    test = pq.read_table(Path(pairs.uri("test"), "00000.parquet")).to_pylist()
    test[0]["rejected"] = "no " * 60
    files = {
        "train": {"00000.parquet": Path(pairs.uri("train"), "00000.parquet").read_bytes()},
        "test": {"00000.parquet": parquet(test, PAIRS)},
        "prompts": {"prompts.parquet": parquet(asked, PROMPTS)},
    }
    config = CONFIG.model_copy(update={"epochs": 0.1, "max_length": 60})
    counts = prefer(config, coin_model, artifact("pairs", tmp_path / "held", files), unfit, new_place())
    assert {(row["step"], row["reason"]): row["documents"] for row in counts.funnel} == {
        ("held-out", "longer than max_length"): 1, ("held-out", "prompt longer than the context"): 1
    }  # fmt: skip
    assert [gate["n"] for gate in counts.gates] == [39, 61]


def test_a_step_too_small_for_bfloat16_moves_its_weights(
    coin_model: Artifact, pairs: Artifact, unfit: Artifact, tmp_path: Path, new_place: Callable[..., Place]
) -> None:
    """A folder in bfloat16 is trained in float32: in its own type no weight of ordinary size would change at all."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    low, place = tmp_path / "low" / "model", new_place()
    shutil.copytree(Path(coin_model.home) / "model", low)
    AutoModelForCausalLM.from_pretrained(low, dtype=torch.bfloat16).save_pretrained(low)
    config = CONFIG.model_copy(update={"learning_rate": 1e-6, "epochs": 1})
    prefer(config, artifact("low", low.parent), pairs, unfit, place)
    before, after = (load_file(folder / "model.safetensors") for folder in (low, Path(place.home) / "model"))
    layers = [name for name in before if "proj" in name]
    moved = torch.cat([(after[name] - before[name].float()).flatten() for name in layers])
    assert before[layers[0]].dtype == torch.bfloat16 and after[layers[0]].dtype == torch.float32
    assert (moved != 0).float().mean() > 0.9 and moved.abs().max() < 1e-5
