"""The last model as a Hugging Face folder with a model card, checked by loading it and talking to it."""

import json
import re
from pathlib import Path
from typing import Any

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.place import Place
from data_curation.settings import Settings
from training.measures import gate

Scores = dict[str, dict[str, dict[str, Any]]]

COMPARED = (
    ("task_accuracy", "Greedy accuracy on held-out tasks", 100.0, "%"),
    ("preference_accuracy", "Accuracy on held-out preference pairs", 100.0, "%"),
    ("win_rate/chat", "Chat answers that the reward model prefers to the SFT model's", 100.0, "%"),
    ("win_rate/task", "Answers to tasks that it prefers to the SFT model's", 100.0, "%"),
    ("refusal/harmful", "Harmful requests refused", 100.0, "%"),
    ("refusal/harmless", "Harmless requests refused", 100.0, "%"),
    ("answer_loss", "Loss on held-out chat answers (nats per token)", 1.0, ""),
    ("bits_per_byte", "Bits per byte of held-out text", 1.0, ""),
    ("loss", "Loss on held-out text (nats per token)", 1.0, ""),
)  # fmt: skip
"""Rows of the card's table: metric, words, factor, unit."""
MODELS = ("base", "sft", "dpo", "grpo")
STAGES = {
    "base": "pretraining on documents in phases of growing length",
    "sft": "supervised fine-tuning on conversations, assistant turns only",
    "dpo": "direct preference optimisation on pairs of the model's own answers, judged by verifiers",
    "grpo": "reinforcement learning (GRPO) on verifiable tasks",
}


class PublishConfig(Settings):
    """What the model card says, and how the finished model is tried."""

    title: str = "A Tokenmill model"
    """Heading of the model card."""
    license: str = "apache-2.0"
    """The weights' licence, by its Hugging Face identifier; the documents' own licences are yours to check."""
    languages: list[str] = ["en"]
    """ISO 639-1 codes for the card's header."""
    notes: str = ""
    """Markdown added to the card: data, intended use, limits."""
    prompts: list[str] = ["Hello!", "What is 2 plus 3?", "What can you do?"]
    """Questions that the finished model must answer and stop."""
    max_new_tokens: int = 128
    """Tokens within which an answer must stop."""


def publish(config: PublishConfig, model: Artifact, evaluations: list[Artifact], place: Place) -> Counts:
    """Part `model`: the model's folder, unchanged, and README.md; gates say whether it answers and stops."""
    finished = place.done("model")
    if finished is not None:
        return finished.counts
    folder = model.folder("model", place.scratch)
    scores: Scores = {
        artifact.name.removeprefix("evaluate-"): artifact.read_json("scores", "scores.json") for artifact in evaluations
    }
    counts = _try(config, folder, place)
    card = model_card(config, json.loads((folder / "config.json").read_text()), scores)
    counts.samples.append({"title": "README.md", "text": card})
    with place.piece("model") as piece:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            if path.name != "README.md":
                with piece.write("model", path.relative_to(folder).as_posix()) as out:
                    out.write(path.read_bytes())
        with piece.write("model", "README.md") as out:
            out.write(card.encode())
        counts.made = {"files": len(piece.piece.files["model"])}
        piece.piece.counts = counts
    return counts


def model_card(config: PublishConfig, architecture: dict[str, Any], scores: Scores) -> str:
    """The model card as Markdown: it follows from the model and its scores alone, no run, host or time in it."""
    models = [name for name in MODELS if name in scores]
    phases = [name for name in scores if name.startswith("pretrain-")]
    blocks = [
        _header(config),
        f"# {config.title}",
        f"A {architecture['model_type']} decoder of {architecture['num_hidden_layers']} layers, "
        f"{architecture['hidden_size']} wide, {architecture['vocab_size']:,} tokens of vocabulary, trained on "
        f"sequences of up to {architecture['max_position_embeddings']:,} tokens. Made with Tokenmill.",
        config.notes.strip(),
        "## Stages",
        "\n".join(f"- **{name}**: {STAGES[name]}" for name in models),
        "## Evaluation",
        "Held-out data that no stage has trained on; value ± standard error (examples).",
        _table(models, scores),
        _named(models, scores, "task_accuracy/", "Accuracy by kind of task (%)", 100.0),
        _named(models, scores, "lm_eval/", "Tasks of lm-eval", 1.0),
        _named(models, scores, "bits_per_byte/source/", "Bits per byte by source", 1.0),
        _named(models, scores, "needle_accuracy/length/", "Needles found by tokens of context (%)", 100.0),
        _lengths(phases, scores),
        "## Use",
        _usage(),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _try(config: PublishConfig, folder: Path, place: Place) -> Counts:
    """Load the folder as a user would, check template and stop token, and ask it the configured questions."""
    from training.chat import check_contract
    from training.measures import load_policy
    from training.model import settle

    device = settle(place)
    net, tokenizer = load_policy(folder, place)
    digest = check_contract(tokenizer, folder)
    counts, stopped = Counts(), 0
    for prompt in config.prompts:
        asked = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(device)
        made = net.generate(**asked, max_new_tokens=config.max_new_tokens, do_sample=False)[0]
        answer = made[asked["input_ids"].shape[1] :].tolist()
        stopped += tokenizer.eos_token_id in answer
        counts.samples.append({"title": prompt, "text": tokenizer.decode(answer, skip_special_tokens=True)})
    share = {"value": stopped / max(1, len(config.prompts)), "n": len(config.prompts), "standard_error": None}
    counts.metrics = {
        "answers_that_stop": share,
        "parameters": {"value": net.num_parameters(), "n": None, "standard_error": None},
    }
    counts.gates.append(gate("answers that stop", share, 1.0))
    place.record("contract", {"template": digest, "eos": tokenizer.eos_token})
    return counts


def _header(config: PublishConfig) -> str:
    languages = "\n".join(f"- {language}" for language in config.languages)
    return (
        f"---\nlicense: {config.license}\nlibrary_name: transformers\npipeline_tag: text-generation\n"
        f"language:\n{languages}\ntags:\n- tokenmill\n---"
    )


def _table(models: list[str], scores: Scores) -> str:
    rows = [
        [f"{words} ({unit})" if unit else words, *(_cell(scores[name].get(metric), factor) for name in models)]
        for metric, words, factor, unit in COMPARED
        if any(metric in scores[name] for name in models)
    ]
    return _markdown(["", *models], rows) if rows else ""


def _named(models: list[str], scores: Scores, start: str, title: str, factor: float) -> str:
    """A table of all metrics whose names begin so."""
    names = {metric for name in models for metric in scores[name] if metric.startswith(start)}
    found = sorted(names, key=lambda metric: [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", metric)])
    rows = [
        [metric.removeprefix(start), *(_cell(scores[name].get(metric), factor) for name in models)] for metric in found
    ]
    return f"{title}:\n\n" + _markdown(["", *models], rows) if rows else ""


def _lengths(phases: list[str], scores: Scores) -> str:
    rows = [
        [name.removeprefix("pretrain-"), _cell(scores[name].get("bits_per_byte"), 1.0)]
        for name in phases
        if "bits_per_byte" in scores[name]
    ]
    title = "Bits per byte of held-out text after each pretraining phase:\n\n"
    return title + _markdown(["sequence length", "bits per byte"], rows) if rows else ""


def _cell(metric: dict[str, Any] | None, factor: float) -> str:
    if metric is None or metric["value"] is None:
        return "-"
    digits = 1 if factor == 100.0 else 3
    value, error = metric["value"] * factor, metric["standard_error"]
    spread = "" if error is None else f" ± {error * factor:.{digits}f}"
    return f"{value:.{digits}f}{spread} ({metric['n']:,})"


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _usage() -> str:
    return """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("model")  # this folder
model = AutoModelForCausalLM.from_pretrained("model")
messages = [{"role": "user", "content": "Hello!"}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
answer = model.generate(**inputs, max_new_tokens=128)[0, inputs["input_ids"].shape[1]:]
print(tokenizer.decode(answer, skip_special_tokens=True))
```"""
