"""Supervised fine-tuning on conversations: only what the assistant says is trained, its stop token included."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.documents import read_rows
from data_curation.place import Piece, Place
from data_curation.settings import InputError, Settings, StageError
from training import measures

Row = dict[str, Any]


class InstructConfig(Settings):
    """Settings of `instruct`."""

    learning_rate: float = Field(default=2e-5, gt=0)
    """Peak of AdamW's learning rate (SmolLM3's; a model of a few million parameters wants about 1e-3)."""
    schedule: Literal["linear", "cosine", "warmup_stable_decay"] = "cosine"
    """How the learning rate falls after `warmup`; the last keeps the peak until `decay` begins."""
    decay: float = Field(default=0.3, gt=0, lt=1)
    """Share of the steps at the end in which `warmup_stable_decay` falls to 0."""
    warmup: float = Field(default=0.03, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from 0."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's weight decay."""
    epochs: float = Field(default=2.0, gt=0)
    """Passes over the train conversations."""
    seq_len: int = Field(default=4096, gt=1)
    """Tokens of a packed row; longer conversations are dropped and counted."""
    batch_size: int = Field(default=16, gt=0)
    """Packed rows of one optimizer step."""
    dev_tasks: int = Field(default=400, ge=0)
    """Dev tasks answered greedily before and after."""
    dev_chats: int = Field(default=400, ge=0)
    """Dev conversations whose loss is measured before and after."""
    max_new_tokens: int = Field(default=64, gt=0)
    """Longest greedy answer to a dev task, in tokens."""
    seed: int = 0
    """Seed of the order of the packed rows."""


def instruct(config: InstructConfig, model: Artifact, dialogues: Artifact, place: Place) -> Counts:
    """Part `model`: the base model tuned on the dialogues' split train, measured on dev before and after."""
    from training.chat import check_contract

    source = model.folder("model", place.scratch)
    base, tokenizer = measures.load_policy(source, place)
    digest = check_contract(tokenizer, source)
    dev = _dev(config, tokenizer, dialogues)
    before = place.done("before") or _measured(config, place, "before", base, tokenizer, dev)
    done = place.done("model") or _train(config, place, source, base, tokenizer, dialogues)
    folder = place.folder(done, "model")
    tuned, tokenizer = measures.load_policy(folder, place)
    if check_contract(tokenizer, folder) != digest:
        raise StageError("instruct: the chat template changed during training")
    after = _measured(config, place, "after", tuned, tokenizer, dev)
    counts = done.counts
    _report(counts, before.note, after.note, dev)
    return counts


# ---- training -----------------------------------------------------------------------------------------------------


def _train(config: InstructConfig, place: Place, source: Path, base: Any, tokenizer: Any, dialogues: Artifact) -> Piece:
    from trl.trainer.sft_config import SFTConfig

    from training.packed_rows import PackedTrainer, collate
    from training.trainers import CheckpointPieces, arguments, curve, resume_folder, save_model

    counts = Counts()
    packed = _packed(config, tokenizer, _rows(dialogues, "train"), counts)
    rows = _rows_a_pass(config, place)
    steps = math.ceil(math.ceil(len(packed) / config.batch_size) * config.epochs)
    falls = {"num_decay_steps": max(1, round(steps * config.decay))} if "decay" in config.schedule else {}
    options = arguments(
        SFTConfig, place, learning_rate=config.learning_rate, lr_scheduler_type=config.schedule,
        lr_scheduler_kwargs=falls, max_steps=steps,
        warmup_steps=config.warmup, weight_decay=config.weight_decay,
        per_device_train_batch_size=rows, gradient_accumulation_steps=config.batch_size // rows,
        # The rows are packed here, so that a pass may hold several of them side by side.
        dataset_kwargs={"skip_prepare_dataset": True}, shuffle_dataset=False, remove_unused_columns=False,
        logging_steps=10, logging_first_step=True, seed=config.seed,
    )  # fmt: skip
    trainer = PackedTrainer(
        model=base, args=options, train_dataset=packed, data_collator=collate, processing_class=tokenizer,
        callbacks=[CheckpointPieces(place)],
    )  # fmt: skip
    checkpoint = resume_folder(place)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    history = trainer.state.log_history
    losses = curve(history, "loss")
    last = losses[-1][1]
    if not math.isfinite(last):
        raise StageError(f"instruct.learning_rate is {config.learning_rate}: the loss ended as {last}; lower it")
    place.plot("loss", "Loss of instruct on train", "step", "nats per assistant token", {"train": losses})
    place.record("history", history)
    counts.metrics["final train loss"] = {"value": last, "n": None, "standard_error": None}
    with place.piece("model") as piece:
        out = place.scratch / "model"
        save_model(trainer.model, source, out, tokenizer.eos_token_id, tokenizer.pad_token_id)
        piece.send("model", out)
        counts.made = {"models": 1, "steps": trainer.state.global_step}
        piece.piece.counts = counts
    return piece.piece


def _rows_a_pass(config: InstructConfig, place: Place) -> int:
    """The largest divisor of the batch that `micro_batch_tokens` allows."""
    most = max(1, (place.resources.micro_batch_tokens or 16_384) // config.seq_len)
    return max(rows for rows in range(1, most + 1) if config.batch_size % rows == 0)


def _packed(config: InstructConfig, tokenizer: Any, rows: Sequence[Row], counts: Counts) -> Any:
    """Rows of `seq_len` tokens at most with columns input_ids, labels and seq_lengths, by TRL's best-fit packing."""
    from datasets import Dataset
    from trl.data_utils import pack_dataset

    from training.chat import encode_all

    encoded = encode_all(tokenizer, [row["messages"] for row in rows])
    kept = [pair for pair in encoded if len(pair[0]) <= config.seq_len and any(pair[1][1:])]
    counts.taken = {"conversations": len(rows), "tokens": sum(len(ids) for ids, _ in kept)}
    counts.taken["trained tokens"] = sum(sum(mask) for _, mask in kept)
    if len(kept) < len(encoded):
        counts.funnel.append(
            {"step": "encode", "reason": "longer than seq_len", "documents": len(encoded) - len(kept), "bytes": 0}
        )
    if not kept:
        raise InputError(f"instruct.seq_len is {config.seq_len}: all {len(rows)} conversations are longer; raise it")
    unpacked = Dataset.from_list([{"input_ids": ids, "labels": labels(ids, mask)} for ids, mask in kept])
    return pack_dataset(unpacked, config.seq_len, "bfd")


def labels(ids: Sequence[int], mask: Sequence[int]) -> list[int]:
    """The tokens where the assistant speaks, -100 elsewhere."""
    return [token if on else -100 for token, on in zip(ids, mask, strict=True)]


def _rows(dialogues: Artifact, split: str) -> list[Row]:
    return [row for uri in dialogues.uris(split, ".parquet") for row in read_rows(uri)]


# ---- measuring ----------------------------------------------------------------------------------------------------


def _dev(config: InstructConfig, tokenizer: Any, dialogues: Artifact) -> dict[str, list[Row]]:
    """Dev tasks and dev conversations, the latter only where they fit into a row."""
    from training.chat import encode_all

    rows = _rows(dialogues, "dev")
    tasks = [row for row in rows if row["kind"] == "task"][: config.dev_tasks]
    chats = [row for row in rows if row["kind"] == "chat"]
    encoded = encode_all(tokenizer, [row["messages"] for row in chats])
    short = [row for row, (ids, _) in zip(chats, encoded, strict=True) if len(ids) <= config.seq_len]
    return {"tasks": tasks, "chats": short[: config.dev_chats]}


def _measured(
    config: InstructConfig, place: Place, when: str, model: Any, tokenizer: Any, dev: dict[str, list[Row]]
) -> Piece:
    """A piece whose note holds {"solved": 0 or 1 a task, "answers", "losses": [nats, trained tokens] a chat}."""
    from training.chat import generate_answers
    from training.verifiers import verify

    prompts = [row["messages"][:-1] for row in dev["tasks"]]
    answers = generate_answers(model, tokenizer, prompts, config.max_new_tokens)
    with place.piece(when) as piece:
        piece.piece.note = {
            "solved": [
                float(verify(json.loads(row["task"]), answer))
                for row, answer in zip(dev["tasks"], answers, strict=True)
            ],
            "answers": answers,
            "losses": heldout_losses(model, tokenizer, [row["messages"] for row in dev["chats"]]),
        }
    return piece.piece


def heldout_losses(model: Any, tokenizer: Any, conversations: Sequence[Any], batch: int = 16) -> list[list[float]]:
    """For each conversation [nats summed over the assistant's tokens, their number]."""
    import torch
    from torch.nn.functional import cross_entropy

    from training.chat import encode_all

    encoded = encode_all(tokenizer, conversations)
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index][0]))
    found: list[list[float]] = [[] for _ in encoded]
    for start in range(0, len(order), batch):
        share = order[start : start + batch]
        width = max(len(encoded[index][0]) for index in share)
        tokens = torch.full((len(share), width), tokenizer.pad_token_id)
        wanted = torch.full((len(share), width), -100)
        for row, index in enumerate(share):
            ids, mask = encoded[index]
            tokens[row, : len(ids)] = torch.tensor(ids)
            wanted[row, : len(ids)] = torch.tensor(labels(ids, mask))
        # Padding stands on the right of causal attention: no real token sees it.
        with torch.inference_mode():
            logits = model(input_ids=tokens.to(model.device), use_cache=False).logits[:, :-1].float()
        nats = cross_entropy(logits.transpose(1, 2), wanted[:, 1:].to(model.device), reduction="none").sum(1)
        counted = (wanted[:, 1:] != -100).sum(1)
        for index, value, number in zip(share, nats.tolist(), counted.tolist(), strict=True):
            found[index] = [value, number]
    return found


def _report(counts: Counts, before: Row, after: Row, dev: dict[str, list[Row]]) -> None:
    for when, note in (("before", before), ("after", after)):
        counts.metrics[f"dev task accuracy {when}"] = measures.mean(note["solved"])
        counts.metrics[f"dev loss {when}"] = per_token(note["losses"])
    families: dict[str, list[float]] = {}
    for row, solved in zip(dev["tasks"], after["solved"], strict=True):
        families.setdefault(_family(row), []).append(solved)
    for name, values in sorted(families.items()):
        counts.metrics[f"dev accuracy of {name}"] = measures.mean(values)
    gain = measures.difference(after["solved"], before["solved"])
    counts.gates.append(measures.gate("dev task accuracy above the base model's", gain, 0.0, errors=2.0))
    for row, old, new in list(zip(dev["tasks"], before["answers"], after["answers"], strict=True))[:5]:
        text = f"user: {row['messages'][0]['content']}\nbefore: {old}\nafter: {new}"
        counts.samples.append({"title": f"dev task, {_family(row)}", "text": text})


def per_token(losses: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Nats per assistant token over all conversations; the standard error is that of a ratio of means."""
    tokens = sum(number for _, number in losses)
    if not tokens:
        return measures.mean([])
    value, n = sum(nats for nats, _ in losses) / tokens, len(losses)
    spread = sum((nats - value * number) ** 2 for nats, number in losses)
    error = math.sqrt(spread * n / (n - 1)) / tokens if n > 1 else None
    return {"value": value, "n": n, "standard_error": error}


def _family(row: Row) -> str:
    return str(json.loads(row["task"])["family"])
