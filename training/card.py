"""The model card as Markdown: stages, data, gates, evaluations, lineage, licences, use."""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from training import provenance
from training.provenance import Facts, table

if TYPE_CHECKING:
    from training.publish import PublishRun

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
"""Rows of the table of all models: metric, words, factor, unit."""
MODELS = ("base", "sft", "dpo", "grpo")


def model_card(
    config: "PublishRun",
    architecture: Mapping[str, Any],
    scores: Scores,
    gates: Iterable[Mapping[str, Any]] = (),
) -> str:
    """The card of a model with these scores, `gates` those of its trial: no run, host, place or time is in it."""
    facts = config.stages
    labels = {name: _label(name, facts) for name in MODELS if name in scores}
    phases = [name for name in scores if name.startswith("pretrain-")]
    blocks = [
        _front(config, provenance.datasets(facts)),
        f"# {config.title}",
        f"A {architecture['model_type']} decoder of {architecture['num_hidden_layers']} layers, "
        f"{architecture['hidden_size']} wide, {architecture['vocab_size']:,} tokens of vocabulary, trained on "
        f"sequences of up to {architecture['max_position_embeddings']:,} tokens. Made with Tokenmill.",
        config.notes.strip(),
        *_section("Data", provenance.data(facts, config.data_licenses)),
        "## Stages",
        "\n".join(f"- **{label}**: {_sentence(name, facts)}" for name, label in labels.items()),
        provenance.stages(facts) if facts else "",
        *_section("Gates", provenance.gates(facts, gates)),
        "## Evaluation",
        "Held-out data that no stage has trained on; value ± standard error (examples).",
        _compared(labels, scores),
        _named(labels, scores, "task_accuracy/", "Accuracy by kind of task (%)", 100.0),
        _named(labels, scores, "lm_eval/", "Tasks of lm-eval", 1.0),
        _named(labels, scores, "bits_per_byte/source/", "Bits per byte by source", 1.0),
        _named(labels, scores, "needle_accuracy/length/", "Needles found by tokens of context (%)", 100.0),
        _lengths(phases, scores),
        *_section("Lineage", provenance.lineage()),
        *_section("Licences", provenance.licence(facts, config.license)),
        "## Use",
        _usage(),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _front(config: "PublishRun", datasets: list[str]) -> str:
    lists = {"language": config.languages, "datasets": datasets, "tags": ["tokenmill"]}
    listed = "".join(f"{name}:\n" + "".join(f"- {one}\n" for one in some) for name, some in lists.items() if some)
    return f"---\nlicense: {config.license}\nlibrary_name: transformers\npipeline_tag: text-generation\n{listed}---"


def _section(title: str, text: str) -> list[str]:
    return [f"## {title}", text] if text else []


def _label(name: str, facts: Facts) -> str:
    """What a model is called in the card: the last one by the algorithm that trained it."""
    return str(facts["reinforce"].settings["algorithm"]) if name == "grpo" and "reinforce" in facts else name


def _sentence(name: str, facts: Facts) -> str:
    """How a model came to be, as far as the stages say it."""
    return {"base": _pretrained, "sft": _instructed, "dpo": _preferred, "grpo": _reinforced}[name](facts)


def _pretrained(facts: Facts) -> str:
    if origin := provenance.origin(facts):
        return f"{origin}, not pretrained here"
    lengths = [f"{one.settings['phase']['seq_len']:,}" for one in facts.values() if one.word == "pretrain"]
    *some, last = lengths or ["growing"]
    between = f"{', '.join(some)} and " if some else ""
    return f"pretraining on documents in phases of {between}{last} {'tokens' if lengths else 'length'}"


def _instructed(facts: Facts) -> str:
    adapters = "instruct" in facts and facts["instruct"].settings["lora_rank"] > 0
    words = ", by adapters of low rank that are merged" if adapters else ""
    return f"supervised fine-tuning on conversations, assistant turns only{words}"


def _preferred(facts: Facts) -> str:
    if "prefer" not in facts or "pairs" not in facts:
        return "preference optimisation"
    loss, pairs = facts["prefer"].settings["loss_type"], facts["pairs"]
    how = {"sigmoid": "direct preference optimisation", "sigmoid_norm": "length-normalised DPO"}
    judged = {
        "sample": "the model's own answers, judged by verifiers",
        "reference": "reference answers and the model's own wrong ones, judged by verifiers",
        "sample-or-reference": "the model's own answers, judged by verifiers, or the reference where none is right",
    }
    prompts = pairs.taken.get("prompts", 0)
    tasks = prompts and pairs.settings["prompts"] != 0 and _made("dialogues", "train tasks", facts)
    chats = prompts and pairs.settings["chat_prompts"] and _made("dialogues", "train conversations", facts)
    kinds = [judged[pairs.settings["chosen"]]] if tasks else []
    kinds += ["replies of the data before the model's own"] if chats else []
    kinds += ["given preferences"] if pairs.taken.get("preferences") else []
    return f"{how.get(loss, f'preference optimisation ({loss} loss)')} on pairs of {'; of '.join(kinds)}"


def _reinforced(facts: Facts) -> str:
    if "reinforce" not in facts:
        return "reinforcement learning on verifiable tasks"
    settings = facts["reinforce"].settings
    fit = "reward" in facts and all(row["passed"] for row in facts["reward"].gates)
    words = ", rewarded by their verifiers and the reward model" if fit and settings["reward_weight"] > 0 else ""
    return f"reinforcement learning ({settings['algorithm'].upper()}) on verifiable tasks{words}"


def _made(word: str, unit: str, facts: Facts) -> int:
    return facts[word].made.get(unit, 0) if word in facts else 0


def _compared(labels: Mapping[str, str], scores: Scores) -> str:
    rows = [
        [f"{words} ({unit})" if unit else words, *(_cell(scores[name].get(metric), factor) for name in labels)]
        for metric, words, factor, unit in COMPARED
        if any(metric in scores[name] for name in labels)
    ]
    return table(["", *labels.values()], rows) if rows else ""


def _named(labels: Mapping[str, str], scores: Scores, start: str, title: str, factor: float) -> str:
    """A table of all metrics whose names begin so."""
    names = {metric for name in labels for metric in scores[name] if metric.startswith(start)}
    found = sorted(names, key=lambda metric: [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", metric)])
    rows = [
        [metric.removeprefix(start), *(_cell(scores[name].get(metric), factor) for name in labels)] for metric in found
    ]
    return f"{title}:\n\n" + table(["", *labels.values()], rows) if rows else ""


def _lengths(phases: list[str], scores: Scores) -> str:
    rows = [
        [name.removeprefix("pretrain-"), _cell(scores[name].get("bits_per_byte"), 1.0)]
        for name in phases
        if "bits_per_byte" in scores[name]
    ]
    title = "Bits per byte of held-out text after each pretraining phase:\n\n"
    return title + table(["sequence length", "bits per byte"], rows) if rows else ""


def _cell(metric: dict[str, Any] | None, factor: float) -> str:
    if metric is None or metric["value"] is None:
        return "-"
    digits = 1 if factor == 100.0 else 3
    value, error = metric["value"] * factor, metric["standard_error"]
    spread = "" if error is None else f" ± {error * factor:.{digits}f}"
    return f"{value:.{digits}f}{spread} ({metric['n']:,})"


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
