"""Guarantees of the published folder: it loads, it answers, and its card says what was measured."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_curation.artifact import Artifact
from data_curation.place import Place
from data_curation.settings import StageError
from tests.training.conftest import artifact
from training.card import model_card
from training.provenance import MAIN, StageFacts
from training.publish import PublishConfig, PublishRun, publish

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


ARCHITECTURE = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "vocab_size": 300,
    "max_position_embeddings": 128,
}


def facts(word: str, settings: dict[str, Any], **more: Any) -> StageFacts:
    """A stage that has run with these settings."""
    return StageFacts(word=word, key=f"{word:0<12}"[:12], settings=settings, **more)


def gate(name: str, value: float | None, passed: bool, **more: Any) -> dict[str, Any]:
    """A row of Counts.gates."""
    error = None if value is None else 0.125
    return {"gate": name, "value": value, "standard_error": error, "against": 0.5, "passed": passed, **more}


def the_road(
    algorithm: str = "grpo",
    tasks: int = 90,
    preferences: int = 0,
    chats: int = 0,
    chosen: str = "sample",
    fit: bool = False,
    weight: float = 0.5,
) -> dict[str, StageFacts]:
    """Facts of a road with a hub dataset, a folder and Debian packages among its sources."""
    packages = {"name": "docs", "kind": "web-packages", "packages": ["perl-doc"], "limit": 1600}
    hub = {"name": "chat", "kind": "hub", "split": "train", "weight": 2.0}
    made = {"train tasks": tasks and tasks + 5, "train conversations": 7}
    judged = {"prompts": None, "preferences": None, "chat_prompts": chats, "chosen": chosen}
    taken = {"prompts": tasks + chats, **({"preferences": preferences} if preferences else {})}
    return {
        "dialogues": facts(
            "dialogues", {"sources": [hub], "families": ["sums"], "tasks": {"train": tasks}}, made=made,
            repositories={"chat": "someone/chats@" + "a" * 40},
        ),
        "extract": facts("extract", {"sources": [packages]}, taken={"documents": 1600}, made={"documents": 1234}),
        "pretrain-64": facts("pretrain", {"phase": {"seq_len": 64}, "optimizer": "muon"}),
        "pretrain-1k": facts("pretrain", {"phase": {"seq_len": 1024}}, gates=[gate("short_rise", 0.25, False)]),
        "instruct": facts("instruct", {"learning_rate": 3e-3, "lora_rank": 0}),
        "pairs": facts("pairs", judged, taken=taken),
        "reward": facts("reward", {}, gates=[gate("best-of-8", 0.75 if fit else 0.25, fit, advisory=True)]),
        "prefer": facts("prefer", {"loss_type": "sigmoid"}, gates=[gate("verifiers", None, False)]),
        "reinforce": facts("reinforce", {"algorithm": algorithm, "reward_weight": weight}),
    }  # fmt: skip


def card(stages: dict[str, StageFacts], **settings: Any) -> str:
    """The card of a model that came this way."""
    return model_card(
        PublishConfig(**settings).of(stages), ARCHITECTURE, SCORES, [gate("answers that stop", 1.0, True)]
    )


def test_the_card_shows_the_models_side_by_side() -> None:
    """Every value stands with standard error and number of examples; what was not measured is a dash."""
    text = card({}, license="mit", notes="For tests.")
    assert text.startswith("---\nlicense: mit\n")
    assert "For tests." in text
    assert "| Greedy accuracy on held-out tasks (%) | 0.0 ± 0.0 (200) | 62.5 ± 3.4 (200) |" in text
    assert "| sums | - | 50.0 ± 5.0 (100) |" in text
    assert "| Bits per byte of held-out text | 1.500 ± 0.050 (40) | 1.750 ± 0.050 (40) |" in text
    assert "| 256 | 1.625 ± 0.050 (40) |" in text


def test_the_card_says_where_the_model_comes_from() -> None:
    """Sources with their licences, every stage with key and settings, how to trace it; a hub dataset in the header."""
    text = card(the_road(), data_licenses={"docs": "Artistic or GPL-1+"})
    assert "| docs | documents | web-packages: perl-doc |  | 1,600 | Artistic or GPL-1+ |" in text
    assert f"| chat | conversations | someone/chats@{'a' * 40}, split train | 2 | all | not recorded |" in text
    assert "| exercises | verifiable tasks | generated by Tokenmill: sums |  | 90 | as Tokenmill |" in text
    assert "\ndatasets:\n- someone/chats\n" in text.split("---")[1]
    assert "| extract | `extract00000` | 1,600 documents | 1,234 documents |" in text
    assert "| pretrain-64 | `pretrain0000` |  |  | phase.seq_len 64; optimizer muon |" in text
    assert "| instruct | `instruct0000` |  |  | learning_rate 0.003; lora_rank 0 |" in text
    assert "tokenmill trace FOLDER" in text
    titles = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert titles == ["Data", "Stages", "Gates", "Evaluation", "Lineage", "Licences", "Use"]
    assert "apache-2.0" in text.partition("## Licences")[2] and "`copyright`" in text.partition("## Licences")[2]


def test_the_card_shows_every_gate_with_its_outcome() -> None:
    """Passed, failed, advisory and not measured are told apart; the trial of the finished model is among them."""
    rows = card(the_road()).partition("## Gates")[2].partition("##")[0].strip().splitlines()[2:]
    assert rows == [
        "| pretrain-1k | short_rise | 0.25 ± 0.12 | 0.5 | failed |",
        "| reward | best-of-8 | 0.25 ± 0.12 | 0.5 | failed (advisory) |",
        "| prefer | verifiers |  | 0.5 | not measured |",
        "| publish | answers that stop | 1 ± 0.12 | 0.5 | passed |",
    ]


@pytest.mark.parametrize(
    ("stages", "sentence"),
    [
        (the_road(), "**grpo**: reinforcement learning (GRPO) on verifiable tasks\n"),
        (the_road("rloo"), "**rloo**: reinforcement learning (RLOO) on verifiable tasks\n"),
        (the_road(fit=True), "(GRPO) on verifiable tasks, rewarded by their verifiers and the reward model\n"),
        (the_road(fit=True, weight=0.0), "(GRPO) on verifiable tasks\n"),
        (the_road(), "optimisation on pairs of the model's own answers, judged by verifiers\n"),
        (the_road(chosen="reference"), "pairs of reference answers and the model's own wrong ones, judged by"),
        (the_road(tasks=0, preferences=5), "direct preference optimisation on pairs of given preferences\n"),
        (the_road(tasks=0, chats=5), "pairs of replies of the data before the model's own\n"),
        (the_road(preferences=5), "the model's own answers, judged by verifiers; of given preferences\n"),
        (the_road(), "**base**: pretraining on documents in phases of 64 and 1,024 tokens\n"),
    ],
)  # fmt: skip
def test_what_is_said_of_a_stage_follows_its_settings(stages: dict[str, StageFacts], sentence: str) -> None:
    """The algorithm, the origin of the pairs and the use of the reward model are those of this run."""
    text = model_card(PublishRun(stages=stages), ARCHITECTURE, {**SCORES, "dpo": {}}, [])
    assert sentence in text


@pytest.mark.parametrize(
    ("path", "called"),
    [("hub://someone/model@" + "c" * 40, "someone/model@" + "c" * 40), ("d" * 64, "the model of sha256 dddddddddddd")],
)
def test_a_model_that_was_not_pretrained_here_is_named(path: str, called: str) -> None:
    """Its name stands where pretraining would, and in the licences; the documents have only measured it."""
    ours = {name: one for name, one in the_road().items() if one.word != "pretrain"}
    text = card(ours | {"base": facts("base", {"path": path})})
    assert f"**base**: {called}, not pretrained here\n" in text
    assert f"made from {called}, whose licence binds them" in text.partition("## Licences")[2]
    assert "| docs | documents, to measure by alone |" in text
    assert "not pretrained" not in card(the_road()) and "| docs | documents |" in card(the_road())


def test_another_algorithm_is_named_in_every_table() -> None:
    """A model of RLOO stands under its name, and GRPO is said nowhere."""
    text = card(the_road("rloo"))
    assert "|  | base | rloo |" in text and not re.search("grpo", text, re.IGNORECASE)


def test_the_settings_that_the_card_shows_exist() -> None:
    """A setting that was renamed would silently be missing from every card."""
    from flows.config import PipelineConfig

    config = PipelineConfig()
    for word, paths in MAIN.items():
        section = config.pretrain.run_of(0) if word == "pretrain" else getattr(config, word)
        for path in paths:
            found: Any = section.identity()
            for name in path.split("."):
                assert found is None or name in found, f"{word}.{path}"
                found = found and found[name]


def test_the_folder_is_the_model_with_a_card(
    tiny_model: Artifact, new_place: Callable[..., Place], tmp_path: Path
) -> None:
    """All files of the model arrive unchanged; two attempts publish equal bytes; the contract was checked."""
    found = []
    for name in ("one", "two"):
        place = new_place(name)
        config = PublishConfig(max_new_tokens=4).of(the_road())
        counts = publish(config, tiny_model, evaluations(tmp_path / name), place)
        folder = Path(place.home, "model")
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
        assert [gate["gate"] for gate in counts.gates] == ["answers that stop"]
    source = {path.name: path.read_bytes() for path in Path(tiny_model.uri("model")).iterdir()}
    assert found[0] == found[1]
    assert {name: data for name, data in found[0].items() if name != "README.md"} == source
    assert b"| publish | answers that stop | 0 | 1 | failed |" in found[0]["README.md"]


def test_a_model_that_is_asked_nothing_fails_nothing(
    tiny_model: Artifact, new_place: Callable[..., Place], tmp_path: Path
) -> None:
    """Without prompts there is no gate of answers that stop, and no metric of them."""
    counts = publish(PublishRun(prompts=[]), tiny_model, evaluations(tmp_path / "scores"), new_place())
    assert counts.gates == [] and list(counts.metrics) == ["parameters"]


def test_a_model_whose_stop_token_is_not_the_templates_is_refused(
    tiny_model: Artifact, new_place: Callable[..., Place], tmp_path: Path
) -> None:
    """Such a model would never stop, so nothing is published."""
    files = {path.name: path.read_bytes() for path in Path(tiny_model.uri("model")).iterdir()}
    files["generation_config.json"] = b'{"eos_token_id": 0, "pad_token_id": 3}'
    wrong = artifact("wrong", tmp_path / "wrong", {"model": files})
    place = new_place()
    with pytest.raises(StageError, match="eos_token_id is 0"):
        publish(PublishRun(), wrong, evaluations(tmp_path / "scores"), place)
    assert place.pieces() == []
