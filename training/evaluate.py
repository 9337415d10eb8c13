"""What every model is measured by: held-out text, needles, tasks, chats, preferences; all with standard errors."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.documents import read_rows
from data_curation.place import Place
from data_curation.settings import Settings
from training import harness

if TYPE_CHECKING:
    from training.chat_measures import Metrics, Outcomes, Row
    from training.heldout import Text


class EvaluateConfig(Settings):
    """How much every model is measured with. The same data for all models, so that they compare example by example."""

    heldout_tokens: int = Field(default=2_000_000, gt=0)
    """Tokens of held-out text, whole documents in the shards' order (which is random)."""
    seq_len: int | None = Field(default=None, gt=1)
    """Tokens of context; longer documents are read in windows. None: as many as the model was trained with."""
    needles: int = Field(default=40, ge=0)
    """Numbers hidden in held-out text, in contexts of each length: 256 tokens, doubled until the whole context."""
    tasks: int = Field(default=1000, ge=0)
    """Held-out tasks, answered greedily and judged by their verifiers."""
    max_new_tokens: int = Field(default=64, gt=0)
    """Tokens that an answer to a task may have."""
    chats: int = Field(default=1000, ge=0)
    """Held-out chat answers whose likelihood is measured."""
    answered_chats: int = Field(default=200, ge=0)
    """Of their prompts, those that are answered greedily: for the samples and the win rate against the SFT model, by a
    reward model that was found fit."""
    pairs: int = Field(default=1000, ge=0)
    """Held-out preference pairs."""
    refusals: bool = True
    """Whether harmful requests and harmless ones that look alike are asked, and refusals of both counted."""
    samples: int = Field(default=4, ge=0)
    """Answers to tasks, and as many to chats, that are shown in the report."""
    lm_eval: list[str] = []
    """Tasks of lm-eval, an optional package: names of its own, whose data it fetches, or folders of task files (YAML,
    their data beside them). Task files may run code: take them from people whom you trust."""
    lm_eval_limit: int | None = Field(default=None, ge=1)
    """Examples of each of these tasks; none takes all."""
    lm_eval_chat: bool = False
    """Whether their prompts go through the chat template; published numbers of base models are without."""

    def identity(self) -> dict[str, Any]:
        """With the content of task folders in place of where they lie.

        Raises ConfigError, before any work, where lm-eval is missing.
        """
        if self.lm_eval:
            harness.check_installed()
        return super().identity() | {"lm_eval": [harness.identity_of(name) for name in self.lm_eval]}


def evaluate(
    config: EvaluateConfig,
    model: Artifact,
    shards: Artifact,
    dialogues: Artifact,
    pairs: Artifact | None,
    place: Place,
    reward: Artifact | None = None,
    sft: Artifact | None = None,
) -> Counts:
    """Measure one model; part `scores` holds scores.json, {metric: {"value", "n", "standard_error"}}.

    Part `answers` holds what it answered to held-out prompts. `reward` judges them, against those of `sft`, which is
    the evaluation of the SFT model.
    """
    finished = place.done("scores")
    if finished is not None:
        return finished.counts
    from transformers import AutoTokenizer

    from training import chat_measures as measures
    from training.chat import check_contract
    from training.heldout import measure
    from training.model import load, settle
    from training.win_rate import answered, write_answers

    device = settle(place)
    folder = model.folder("model", place.scratch)
    net, tokenizer = load(folder).to(device).eval(), AutoTokenizer.from_pretrained(folder)
    check_contract(tokenizer, folder)
    counts, outcomes, progress = Counts(), dict[str, dict[str, float]](), place.progress("measures", 8)

    def note(measure: str, metrics: "Metrics", results: "Outcomes | None" = None) -> None:
        counts.metrics.update(metrics)
        outcomes.update(results or {})
        progress.update(1, measure)

    heldout = shards.folder("heldout", place.scratch)
    text = measure(net, heldout, folder, config.heldout_tokens, config.seq_len, place)
    note("held-out text", _text_metrics(text), {"bits_per_byte": {row.id: row.bits_per_byte for row in text.documents}})
    note("needles", _needles(net, tokenizer, heldout, config, place))
    net.set_attn_implementation("sdpa")  # packed attention knows no padding

    tasks, chats = _dialogues(dialogues, config)
    answers = answered(net, tokenizer, tasks, "task", config.max_new_tokens)
    note("tasks", *measures.task_accuracy(tasks, answers, config.samples, counts))
    if reward is not None:  # the phases of pretraining have none: they know no conversations
        talks = answered(net, tokenizer, chats[: config.answered_chats], "chat", config.max_new_tokens)
        counts.samples += [measures.sample(one.prompt, one.answer) for one in talks[: config.samples]]
        answers += talks
        note("win rate", measures.rewards(answers, tokenizer, reward, sft, counts, place))
    note("chats", *measures.answer_loss(net, tokenizer, chats, counts))
    note("refusals", measures.refusals(net, tokenizer, config.max_new_tokens) if config.refusals else {})
    note("pairs", *measures.preferences(net, tokenizer, _chosen(pairs, "test", config.pairs) if pairs else []))
    if config.lm_eval:
        limit, chat = config.lm_eval_limit, config.lm_eval_chat
        note("lm-eval", harness.lm_eval_metrics(net, tokenizer, config.lm_eval, limit, chat))

    counts.taken = {"tokens": text.tokens, "tasks": len(tasks), "chats": len(chats)}
    place.record("outcomes", outcomes)
    _plots(place, counts.metrics)
    with place.piece("scores") as piece:
        piece.send_json("scores", "scores.json", counts.metrics)
        write_answers(piece, answers)
        piece.piece.counts = counts
    return counts


def _text_metrics(text: "Text") -> "Metrics":
    metrics = {"bits_per_byte": text.bits_per_byte(), "loss": text.loss()}
    for field in ("language", "source"):
        for value in sorted({getattr(row, field) for row in text.documents}):
            metrics[f"bits_per_byte/{field}/{value or 'unknown'}"] = text.bits_per_byte(**{field: value})
    for bucket in text.positions:
        metrics[f"bits_per_byte/position/{bucket.start}-{bucket.stop - 1}"] = bucket.bits_per_byte()
    return metrics


def _needles(model: Any, tokenizer: Any, heldout: Path, config: EvaluateConfig, place: Place) -> "Metrics":
    from data_curation.shards import heldout_documents
    from training.heldout import room_of
    from training.needles import by_length

    if not config.needles:
        return {}
    context = config.seq_len or model.config.max_position_embeddings
    documents = list(heldout_documents(heldout))
    return by_length(model, documents, tokenizer, config.needles, context, room_of(model, place))


def _plots(place: Place, metrics: "Metrics") -> None:
    shown = (
        ("bits_per_byte/position/", "Held-out text by position", "position", "bits per byte"),
        ("needle_gain/length/", "What a number costs less when it is repeated, by context", "tokens", "nats"),
        ("needle_accuracy/length/", "Needles found by length of context", "tokens", "share"),
    )
    for start, title, x, y in shown:
        points = [
            (float(name.removeprefix(start).split("-")[0]), row["value"])
            for name, row in metrics.items()
            if name.startswith(start)
        ]
        if points:
            place.plot(start.rstrip("/").replace("/", "-"), title, x, y, {y: points})


def _dialogues(dialogues: Artifact, config: EvaluateConfig) -> "tuple[list[Row], list[Row]]":
    rows = _chosen(dialogues, "test", None)
    tasks = [row for row in rows if row["task"]]
    chats = [row for row in rows if not row["task"]]
    return tasks[: config.tasks], chats[: config.chats]


def _chosen(artifact: Artifact, part: str, number: int | None) -> "list[Row]":
    """So many rows, the same for every model, in an order that has nothing to do with their content."""
    rows = [row for uri in artifact.uris(part, ".parquet") for row in read_rows(uri)]
    return sorted(rows, key=lambda row: hashlib.sha256(str(row["id"]).encode()).digest())[:number]
