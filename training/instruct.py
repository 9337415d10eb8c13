"""Supervised fine-tuning on conversations: only what the assistant says is trained, its stop token included."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.documents import read_rows
from data_curation.place import Piece, Place
from data_curation.settings import InputError, Settings, StageError
from training import measures
from training.chat_loss import heldout_losses, labels, per_token

if TYPE_CHECKING:
    from training.on_ranks import Work

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
    tasks: int | None = Field(default=None, ge=0)
    """Generated tasks trained on, the first of them; later ones are new to `pairs` and `reinforce`. None: all."""
    seq_len: int = Field(default=4096, gt=1)
    """Tokens of a packed row; longer conversations are dropped and counted."""
    batch_size: int = Field(default=16, gt=0)
    """Packed rows of one optimizer step."""
    held_out: Literal["dev", "test"] = "test"
    """Part of the dialogues that is measured before and after; `dev` while settings are chosen."""
    held_out_tasks: int = Field(default=1000, ge=0)
    """Held-out tasks answered greedily before and after."""
    held_out_chats: int = Field(default=400, ge=0)
    """Held-out conversations whose loss is measured before and after."""
    max_new_tokens: int = Field(default=64, gt=0)
    """Longest greedy answer to a held-out task, in tokens."""
    lora_rank: int = Field(default=0, ge=0)
    """Rank of adapters on all linear layers, then the only trained weights, merged at the end; 0 trains all weights."""
    seed: int = 0
    """Seed of the order of the packed rows and of the adapters."""


def instruct(config: InstructConfig, model: Artifact, dialogues: Artifact, place: Place) -> Counts:
    """Part `model`: the base model tuned on the dialogues' split train, measured on held-out ones before and after."""
    from training.chat import check_contract
    from training.on_ranks import on_ranks

    source = model.folder("model", place.scratch)
    base, tokenizer = measures.load_policy(source, place)
    digest = check_contract(tokenizer, source)
    held = held_out(config, tokenizer, dialogues)
    before = place.done("before") or measured(config, place, "before", base, tokenizer, held)
    del base
    done = place.done("model") or on_ranks(_train, config, _work(config, source, tokenizer, dialogues), place)
    folder = place.folder(done, "model")
    tuned, tokenizer = measures.load_policy(folder, place)
    if check_contract(tokenizer, folder) != digest:
        raise StageError("instruct: the chat template changed during training")
    after = measured(config, place, "after", tuned, tokenizer, held)
    counts = done.counts
    _report(counts, before.note, after.note, held)
    return counts


# ---- training -----------------------------------------------------------------------------------------------------


def _work(config: InstructConfig, source: Path, tokenizer: Any, dialogues: Artifact) -> "Work":
    from training.on_ranks import Work

    counts = Counts()
    packed = _packed(config, tokenizer, taught(config, _rows(dialogues, "train")), counts)
    return Work(source, packed, counts)


def _train(config: InstructConfig, work: "Work", place: Place) -> None:
    from transformers import AutoTokenizer
    from trl.trainer.sft_config import SFTConfig

    from training.packed_rows import PackedTrainer, collate
    from training.trainers import (
        PASS_TOKENS,
        arguments,
        batches,
        curve,
        first_rank,
        keep_model,
        train,
        trainable,
    )

    tokenizer = AutoTokenizer.from_pretrained(work.source)
    steps = math.ceil(math.ceil(len(work.rows) / config.batch_size) * config.epochs)
    falls = {"num_decay_steps": max(1, round(steps * config.decay))} if "decay" in config.schedule else {}
    options = arguments(
        SFTConfig, place, learning_rate=config.learning_rate, lr_scheduler_type=config.schedule,
        lr_scheduler_kwargs=falls, max_steps=steps,
        warmup_steps=config.warmup, weight_decay=config.weight_decay,
        **batches(config.batch_size, config.seq_len, place, most=PASS_TOKENS),
        # The rows are packed here, so that a pass may hold several of them side by side.
        dataset_kwargs={"skip_prepare_dataset": True}, shuffle_dataset=False, remove_unused_columns=False,
        logging_steps=10, logging_first_step=True, seed=config.seed,
    )  # fmt: skip
    trainer = PackedTrainer(
        model=_adapted(config, trainable(work.source)), args=options, train_dataset=work.rows, data_collator=collate,
        processing_class=tokenizer,
    )  # fmt: skip
    train(trainer, work.checkpoint, place)
    if not first_rank():
        return
    history = trainer.state.log_history
    losses = curve(history, "loss")
    last = losses[-1][1]
    if not math.isfinite(last):
        raise StageError(f"instruct.learning_rate is {config.learning_rate}: the loss ended as {last}; lower it")
    place.plot("loss", "Loss of instruct on train", "step", "nats per assistant token", {"train": losses})
    place.record("history", history)
    work.counts.metrics["final train loss"] = {"value": last, "n": None, "standard_error": None}
    work.counts.made = {"models": 1, "steps": trainer.state.global_step}
    tuned: Any = trainer.model
    keep_model(tuned.merge_and_unload() if config.lora_rank else tuned, tokenizer, work.source, work.counts, place)


def _adapted(config: InstructConfig, base: Any) -> Any:
    """The model itself, or the frozen model with adapters (Hu et al. 2021) of twice their rank as `alpha`."""
    if not config.lora_rank:
        return base
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    set_seed(config.seed)
    rank = config.lora_rank
    return get_peft_model(
        base, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    )


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


def taught(config: InstructConfig, rows: list[Row]) -> list[Row]:
    """All conversations and the first so many tasks, in their order."""
    if config.tasks is None:
        return rows
    late = {id(row) for row in [row for row in rows if row["kind"] == "task"][config.tasks :]}
    return [row for row in rows if id(row) not in late]


def _rows(dialogues: Artifact, split: str) -> list[Row]:
    return [row for uri in dialogues.uris(split, ".parquet") for row in read_rows(uri)]


# ---- measuring ----------------------------------------------------------------------------------------------------


def held_out(config: InstructConfig, tokenizer: Any, dialogues: Artifact) -> dict[str, list[Row]]:
    """Held-out tasks and conversations, the latter only where they fit into a row."""
    from training.chat import encode_all

    rows = _rows(dialogues, config.held_out)
    tasks = [row for row in rows if row["kind"] == "task"][: config.held_out_tasks]
    chats = [row for row in rows if row["kind"] == "chat"]
    encoded = encode_all(tokenizer, [row["messages"] for row in chats])
    short = [row for row, (ids, _) in zip(chats, encoded, strict=True) if len(ids) <= config.seq_len]
    return {"tasks": tasks, "chats": short[: config.held_out_chats]}


def measured(
    config: InstructConfig, place: Place, when: str, model: Any, tokenizer: Any, held: dict[str, list[Row]]
) -> Piece:
    """A piece whose note holds {"solved": 0 or 1 a task, "answers", "losses": [nats, trained tokens] a chat}."""
    from training.answers import generate_answers
    from training.verifiers import verify

    prompts = [row["messages"][:-1] for row in held["tasks"]]
    answers = [answer.text for answer in generate_answers(model, tokenizer, prompts, config.max_new_tokens)]
    with place.piece(when) as piece:
        piece.piece.note = {
            "solved": [
                float(verify(json.loads(row["task"]), answer))
                for row, answer in zip(held["tasks"], answers, strict=True)
            ],
            "answers": answers,
            "losses": heldout_losses(model, tokenizer, [row["messages"] for row in held["chats"]]),
        }
    return piece.piece


def _report(counts: Counts, before: Row, after: Row, held: dict[str, list[Row]]) -> None:
    for when, note in (("before", before), ("after", after)):
        counts.metrics[f"task accuracy {when}"] = measures.mean(note["solved"])
        counts.metrics[f"conversation loss {when}"] = per_token(note["losses"])
    families: dict[str, list[float]] = {}
    for row, solved in zip(held["tasks"], after["solved"], strict=True):
        families.setdefault(_family(row), []).append(solved)
    for name, values in sorted(families.items()):
        counts.metrics[f"accuracy of {name}"] = measures.mean(values)
    gain = measures.difference(after["solved"], before["solved"])
    counts.gates.append(measures.gate("task accuracy gained, above 0 by 2 standard errors", gain, 0.0, errors=2))
    if held["chats"]:
        # A conversation each, whatever its length, so that the pairs' standard error is the usual one.
        old, new = ([nats / max(1, number) for nats, number in note["losses"]] for note in (before, after))
        fallen = measures.difference(old, new)
        counts.gates.append(
            measures.gate("conversation loss fallen, above 0 by 2 standard errors", fallen, 0, errors=2)
        )
    for row, old, new in list(zip(held["tasks"], before["answers"], after["answers"], strict=True))[:5]:
        text = f"user: {row['messages'][0]['content']}\nbefore: {old}\nafter: {new}"
        counts.samples.append({"title": f"held-out task, {_family(row)}", "text": text})


def _family(row: Row) -> str:
    return str(json.loads(row["task"])["family"])
