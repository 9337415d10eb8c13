"""Guarantees of lm-eval's tasks: planted truths come out of its own library, and wrong settings are explained."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_curation.artifact import Artifact
from data_curation.place import Place
from data_curation.settings import ConfigError
from flows.config import CONFIGS, load
from tests.training.conftest import DIALOGUES, artifact, parquet
from tests.training.test_evaluate import TEXTS, chat, heldout
from training import harness
from training.evaluate import EvaluateConfig, evaluate
from training.measures import mean

TASK = {
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "rows.jsonl"}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{text}}",
    "doc_to_choice": ["a", "bb"],
    "doc_to_target": "label",
    "target_delimiter": "",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}


def tasks(folder: Path, name: str, labels: list[int]) -> Path:
    """A folder with one task of a choice between "a" and "bb" after a number."""
    folder.mkdir(parents=True)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name} | TASK))
    rows = [json.dumps({"text": f"Number {number}:", "label": label}) for number, label in enumerate(labels)]
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n")
    return folder


def likelier(model: Artifact, number: int) -> int:
    """Which of the two the model finds likelier, by a plain forward pass."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(model.uri("model"))
    net, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    sums: list[float] = []
    for choice in ("a", "bb"):
        start = len(tokenizer(f"Number {number}:")["input_ids"])
        ids = tokenizer(f"Number {number}:{choice}")["input_ids"]
        with torch.no_grad():
            found: Any = net(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        sums.append(sum(float(found[at - 1, ids[at]]) for at in range(start, len(ids))))
    return sums.index(max(sums))


def test_planted_truths_come_out_of_the_stage(
    coin_model: Artifact, new_place: Callable[..., Place], tmp_path: Path
) -> None:
    """Of eight labels two are not the model's own choice: 75% with its error; files lie in the folder."""
    labels = [likelier(coin_model, number) for number in range(8)]
    labels[2], labels[5] = 1 - labels[2], 1 - labels[5]
    where = tasks(tmp_path / "tasks", "choice", labels)
    from transformers import AutoTokenizer

    folder = Path(coin_model.uri("model"))
    shards = heldout(tmp_path / "shard", AutoTokenizer.from_pretrained(folder), folder, TEXTS)
    rows = parquet([chat(0, json.dumps({"family": "x", "checker": "exact", "answer": "3"})), chat(1)], DIALOGUES)
    chats = artifact("dialogues", tmp_path / "chats", {"test": {"00000.parquet": rows}})
    config = EvaluateConfig(max_new_tokens=4, needles=0, refusals=False, lm_eval=[str(where)])
    counts = evaluate(config, coin_model, shards, chats, None, new_place())
    expected = mean([1.0] * 6 + [0.0] * 2)
    assert counts.metrics["lm_eval/choice/acc"] == expected | {
        "standard_error": pytest.approx(expected["standard_error"])
    }
    first = config.model_copy(update={"lm_eval_limit": 2, "lm_eval_chat": True})
    counts = evaluate(first, coin_model, shards, chats, None, new_place("first"))
    assert counts.metrics["lm_eval/choice/acc"]["n"] == 2


def test_the_key_holds_what_a_folder_holds_not_where_it_lies(tmp_path: Path) -> None:
    """A copy elsewhere has the same identity, another example has not; names are what they are."""
    one = tasks(tmp_path / "one" / "tasks", "choice", [0, 1])
    two = Path(shutil.copytree(one, tmp_path / "two" / "tasks"))
    first, second = (EvaluateConfig(lm_eval=[str(path), "arc_easy"]).identity() for path in (one, two))
    assert first == second and first["lm_eval"][1] == "arc_easy"
    (two / "rows.jsonl").write_text("{}")
    assert EvaluateConfig(lm_eval=[str(two), "arc_easy"]).identity() != first


def test_the_presets_folder_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's task folder is named relative to the checkout."""
    monkeypatch.chdir(tmp_path)
    names = load("demo").evaluate.lm_eval
    assert [harness.folder_of(name) for name in names] == [CONFIGS / "lm-eval"]


def test_wrong_settings_are_explained(tmp_path: Path) -> None:
    """No such folder, no such task, no task in the folder, one name twice."""
    with pytest.raises(ConfigError, match="no such folder"):
        EvaluateConfig(lm_eval=["no/where"]).identity()
    with pytest.raises(ConfigError, match="'arc_eazy', which is no task of lm-eval"):
        harness.lm_eval_metrics(None, None, ["arc_eazy"], None, False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no task is defined"):
        harness.lm_eval_metrics(None, None, [str(tmp_path / "empty")], None, False)
    both = [str(tasks(tmp_path / name, "choice", [0, 1])) for name in ("one", "two")]
    with pytest.raises(ConfigError, match="two tasks named 'choice'"):
        harness.lm_eval_metrics(None, None, both, None, False)


def test_without_the_package_the_configuration_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the key is asked for, so before any work, with the command that installs it; no tasks need nothing."""
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ConfigError, match=r"lm-eval is missing: pip install"):
        EvaluateConfig(lm_eval=["arc_easy"]).identity()
    EvaluateConfig().identity()
