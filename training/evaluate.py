"""What every model is measured by: held-out text, tasks, chat answers, preference pairs; all with standard errors."""

import hashlib
import json
from typing import TYPE_CHECKING, Any

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.documents import read_rows
from data_curation.place import Place
from data_curation.settings import Settings
from training.measures import mean

if TYPE_CHECKING:
    from training.heldout import Text

Metrics = dict[str, dict[str, Any]]


class EvaluateConfig(Settings):
    """How much every model is measured with. The same data for all models, so that they compare example by example."""

    heldout_tokens: int = 2_000_000
    """Tokens of held-out text, whole documents in the shards' order (which is random)."""
    seq_len: int | None = None
    """Tokens of context; longer documents are read in windows. None: as many as the model was trained with."""
    tasks: int = 1000
    """Held-out tasks, answered greedily and judged by their verifiers."""
    max_new_tokens: int = 64
    """Tokens that an answer to a task may have."""
    chats: int = 1000
    """Held-out chat answers whose likelihood is measured."""
    pairs: int = 1000
    """Held-out preference pairs."""
    refusals: bool = True
    """Whether harmful requests and harmless ones that look alike are asked, and refusals of both counted."""
    samples: int = 4
    """Answers that are shown in the report."""


def evaluate(
    config: EvaluateConfig, model: Artifact, shards: Artifact, dialogues: Artifact, pairs: Artifact | None, place: Place
) -> Counts:
    """Measure one model; part `scores` holds scores.json, {metric: {"value", "n", "standard_error"}}."""
    finished = place.done("scores")
    if finished is not None:
        return finished.counts
    from transformers import AutoTokenizer

    from training.heldout import measure
    from training.model import load, settle

    device = settle(place)
    folder = model.folder("model", place.scratch)
    net, tokenizer = load(folder).to(device).eval(), AutoTokenizer.from_pretrained(folder)
    counts, outcomes = Counts(), dict[str, dict[str, float]]()
    progress = place.progress("measures", 5)

    heldout = shards.folder("heldout", place.scratch)
    text = measure(net, heldout, folder, config.heldout_tokens, config.seq_len, place)
    counts.metrics |= _text_metrics(text)
    outcomes["bits_per_byte"] = {row.id: row.bits_per_byte for row in text.documents}
    progress.update(1, f"bits per byte {counts.metrics['bits_per_byte']['value']:.3f}")

    net.set_attn_implementation("sdpa")  # packed attention knows no padding
    tasks, chats = _dialogues(dialogues, config)
    measures = {
        "tasks": lambda: _tasks(net, tokenizer, tasks, config, counts),
        "chats": lambda: _chats(net, tokenizer, chats, counts),
        "refusals": lambda: _refusals(net, tokenizer, config),
        "pairs": lambda: _pairs(net, tokenizer, _chosen(pairs, "test", config.pairs) if pairs else []),
    }
    for name, run in measures.items():
        metrics, found = run()
        counts.metrics |= metrics
        outcomes |= found
        progress.update(1, name)
    counts.taken = {"tokens": text.tokens, "tasks": len(tasks), "chats": len(chats)}
    place.record("outcomes", outcomes)
    place.plot("loss-by-position", "Held-out loss by position", "position", "nats per token",
               {"loss": [(float(bucket.start), bucket.loss) for bucket in text.positions]})  # fmt: skip
    with place.piece("scores") as piece:
        piece.send_json("scores", "scores.json", counts.metrics)
        piece.piece.counts = counts
    return counts


def _text_metrics(text: "Text") -> Metrics:
    metrics = {"bits_per_byte": text.bits_per_byte(), "loss": text.loss()}
    for field in ("language", "source"):
        for value in sorted({getattr(row, field) for row in text.documents}):
            metrics[f"bits_per_byte/{field}/{value or 'unknown'}"] = text.bits_per_byte(**{field: value})
    for bucket in text.positions:
        name = f"loss/position/{bucket.start}-{bucket.stop - 1}"
        metrics[name] = {"value": bucket.loss, "n": bucket.tokens, "standard_error": None}
    return metrics


def _dialogues(dialogues: Artifact, config: EvaluateConfig) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rows = _chosen(dialogues, "test", None)
    tasks = [row for row in rows if row["task"]]
    chats = [row for row in rows if not row["task"]]
    return tasks[: config.tasks], chats[: config.chats]


def _chosen(artifact: Artifact, part: str, number: int | None) -> list[dict[str, Any]]:
    """So many rows, the same for every model, in an order that has nothing to do with their content."""
    rows = [row for uri in artifact.uris(part, ".parquet") for row in read_rows(uri)]
    return sorted(rows, key=lambda row: hashlib.sha256(str(row["id"]).encode()).digest())[:number]


def _tasks(
    model: Any, tokenizer: Any, rows: list[dict[str, Any]], config: EvaluateConfig, counts: Counts
) -> tuple[Metrics, dict[str, dict[str, float]]]:
    """Greedy accuracy, overall and by family."""
    from training.chat import generate_answers
    from training.verifiers import verify

    prompts = [row["messages"][:-1] for row in rows]
    answers = generate_answers(model, tokenizer, prompts, config.max_new_tokens)
    tasks = [json.loads(row["task"]) for row in rows]
    right = [float(verify(task, answer)) for task, answer in zip(tasks, answers, strict=True)]
    for row, answer, judged in list(zip(rows, answers, right, strict=True))[: config.samples]:
        asked = row["messages"][-2]["content"]
        counts.samples.append({"title": f"{asked} ({'right' if judged else 'wrong'})", "text": answer})
    metrics = {"task_accuracy": mean(right)}
    for family in sorted({str(task["family"]) for task in tasks}):
        mine = [value for value, task in zip(right, tasks, strict=True) if task["family"] == family]
        metrics[f"task_accuracy/{family}"] = mean(mine)
    return metrics, {"task_accuracy": {row["id"]: value for row, value in zip(rows, right, strict=True)}}


def _refusals(model: Any, tokenizer: Any, config: EvaluateConfig) -> tuple[Metrics, dict[str, dict[str, float]]]:
    """Share of harmful requests that are refused, and of harmless ones, which a good model answers."""
    from training.chat import generate_answers
    from training.refusals import HARMFUL, HARMLESS, refused

    if not config.refusals:
        return {}, {}
    prompts = [[{"role": "user", "content": text}] for text in (*HARMFUL, *HARMLESS)]
    found = [float(refused(answer)) for answer in generate_answers(model, tokenizer, prompts, config.max_new_tokens)]
    harmful, harmless = found[: len(HARMFUL)], found[len(HARMFUL) :]
    return {"refusal/harmful": mean(harmful), "refusal/harmless": mean(harmless)}, {}


def _chats(
    model: Any, tokenizer: Any, rows: list[dict[str, Any]], counts: Counts
) -> tuple[Metrics, dict[str, dict[str, float]]]:
    """Loss on the last answer of held-out conversations, its end-of-turn token included."""
    from training.chat import encode
    from training.heldout import ratio
    from training.measures import answer_logprobs, last_answer

    limit = model.config.max_position_embeddings
    coded = [encode(tokenizer, row["messages"]) for row in rows]
    fits = [(row, sum(last_answer(mask))) for row, (ids, mask) in zip(rows, coded, strict=True) if len(ids) <= limit]
    if len(fits) < len(rows):
        left_out = len(rows) - len(fits)
        counts.warnings.append(f"{left_out} of {len(rows)} chats are longer than {limit} tokens and were left out")
    prompts = [row["messages"][:-1] for row, _ in fits]
    sums = answer_logprobs(model, tokenizer, prompts, [row["messages"][-1]["content"] for row, _ in fits], batch=16)
    nats, tokens = [-value for value in sums], [size for _, size in fits]
    losses = {row["id"]: loss / size for (row, size), loss in zip(fits, nats, strict=True)}
    return {"answer_loss": ratio(nats, tokens)}, {"answer_loss": losses}


def _pairs(model: Any, tokenizer: Any, rows: list[dict[str, Any]]) -> tuple[Metrics, dict[str, dict[str, float]]]:
    """How often the policy itself finds the chosen answer likelier than the rejected one."""
    from training.measures import preferred

    if not rows:
        return {}, {}
    right = preferred(model, tokenizer, rows)
    outcomes = {row["id"]: value for row, value in zip(rows, right, strict=True)}
    return {"preference_accuracy": mean(right)}, {"preference_accuracy": outcomes}
