"""Guarantees of the published folder: it loads, it answers, and its card says what was measured."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_curation.artifact import Artifact
from data_curation.place import Place
from data_curation.settings import StageError
from tests.training.conftest import artifact
from training.publish import PublishConfig, model_card, publish

SCORES: dict[str, dict[str, Any]] = {
    "base": {
        "task_accuracy": {"value": 0.0, "n": 200, "standard_error": 0.0},
        "bits_per_byte": {"value": 1.5, "n": 40, "standard_error": 0.05},
    },
    "grpo": {
        "task_accuracy": {"value": 0.625, "n": 200, "standard_error": 0.034},
        "task_accuracy/sums": {"value": 0.5, "n": 100, "standard_error": 0.05},
        "bits_per_byte": {"value": 1.75, "n": 40, "standard_error": 0.05},
    },
    "pretrain-256": {"bits_per_byte": {"value": 1.625, "n": 40, "standard_error": 0.05}},
}


def evaluations(home: Path) -> list[Artifact]:
    """One artifact per model, as the stage `evaluate` publishes them."""
    return [
        artifact(f"evaluate-{name}", home / name, {"scores": {"scores.json": json.dumps(scores).encode()}})
        for name, scores in SCORES.items()
    ]


def test_the_card_shows_the_models_side_by_side(tmp_path: Path) -> None:
    """Every value stands with standard error and number of examples; what was not measured is a dash."""
    config = {
        "model_type": "llama",
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "vocab_size": 300,
        "max_position_embeddings": 128,
    }
    card = model_card(PublishConfig(license="mit", notes="For tests."), config, SCORES)
    assert card.startswith("---\nlicense: mit\n")
    assert "For tests." in card
    assert "| Greedy accuracy on held-out tasks (%) | 0.0 ± 0.0 (200) | 62.5 ± 3.4 (200) |" in card
    assert "| sums | - | 50.0 ± 5.0 (100) |" in card
    assert "| Bits per byte of held-out text | 1.500 ± 0.050 (40) | 1.750 ± 0.050 (40) |" in card
    assert "| 256 | 1.625 ± 0.050 (40) |" in card


def test_the_folder_is_the_model_with_a_card(
    tiny_model: Artifact, new_place: Callable[..., Place], tmp_path: Path
) -> None:
    """All files of the model arrive unchanged; two attempts publish equal bytes; the contract was checked."""
    found = []
    for name in ("one", "two"):
        place = new_place(name)
        counts = publish(PublishConfig(max_new_tokens=4), tiny_model, evaluations(tmp_path / name), place)
        folder = Path(place.home, "model")
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
        assert [gate["gate"] for gate in counts.gates] == ["answers that stop"]
    source = {path.name: path.read_bytes() for path in Path(tiny_model.uri("model")).iterdir()}
    assert found[0] == found[1]
    assert {name: data for name, data in found[0].items() if name != "README.md"} == source


def test_a_model_whose_stop_token_is_not_the_templates_is_refused(
    tiny_model: Artifact, new_place: Callable[..., Place], tmp_path: Path
) -> None:
    """Such a model would never stop, so nothing is published."""
    files = {path.name: path.read_bytes() for path in Path(tiny_model.uri("model")).iterdir()}
    files["generation_config.json"] = b'{"eos_token_id": 0, "pad_token_id": 3}'
    wrong = artifact("wrong", tmp_path / "wrong", {"model": files})
    place = new_place()
    with pytest.raises(StageError, match="eos_token_id is 0"):
        publish(PublishConfig(), wrong, evaluations(tmp_path / "scores"), place)
    assert place.pieces() == []
