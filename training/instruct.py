"""Supervised fine-tuning on conversations: only what the assistant says is trained, its stop token included."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.place import Place
from data_curation.settings import InputError, Settings, StageError
from training import measures
from training.chat_loss import labels
from training.instruct_measures import held_out, measured, report, rows_of, seq_len_of

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
    """Tasks trained on, the first of them; later ones are new to `pairs` and `reinforce`. None: all."""
    seq_len: int | None = Field(default=None, gt=1)
    """Tokens of a packed row; longer conversations are dropped and counted. None: the model's context, so the length of
    the last phase of `pretrain`."""
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
    seq_len, dropped = seq_len_of(config, base), Counts()
    held = held_out(config, base, tokenizer, dialogues, dropped)
    before = place.done("before") or measured(config, place, "before", base, tokenizer, held)
    del base
    done = place.done("model") or on_ranks(_train, config, _work(config, seq_len, source, tokenizer, dialogues), place)
    folder = place.folder(done, "model")
    tuned, tokenizer = measures.load_policy(folder, place)
    if check_contract(tokenizer, folder) != digest:
        raise StageError("instruct: the chat template changed during training")
    after = measured(config, place, "after", tuned, tokenizer, held)
    counts = done.counts
    counts.add(dropped)
    report(counts, before.note, after.note, held)
    return counts


def _work(config: InstructConfig, seq_len: int, source: Path, tokenizer: Any, dialogues: Artifact) -> "Work":
    from training.on_ranks import Work

    counts = Counts()
    packed = _packed(seq_len, tokenizer, taught(config, rows_of(dialogues, "train")), counts)
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
        **batches(config.batch_size, max(map(sum, work.rows["seq_lengths"])), place, most=PASS_TOKENS),
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


def _packed(seq_len: int, tokenizer: Any, rows: Sequence[Row], counts: Counts) -> Any:
    """Rows of `seq_len` tokens at most with columns input_ids, labels and seq_lengths, by TRL's best-fit packing."""
    from datasets import Dataset
    from trl.data_utils import pack_dataset

    from training.chat import encode_all

    encoded = encode_all(tokenizer, [row["messages"] for row in rows])
    short = [pair for pair in encoded if len(pair[0]) <= seq_len]
    kept = [pair for pair in short if any(pair[1][1:])]
    counts.taken = {"conversations": len(rows), "tokens": sum(len(ids) for ids, _ in kept)}
    counts.taken["trained tokens"] = sum(sum(mask) for _, mask in kept)
    left_out = {"longer than seq_len": len(encoded) - len(short), "nothing to train on": len(short) - len(kept)}
    counts.funnel += [
        {"step": "encode", "reason": reason, "documents": number, "bytes": 0}
        for reason, number in left_out.items()
        if number
    ]
    if short and not kept:
        raise InputError(f"instruct: none of {len(rows)} conversations has a word of the assistant to train on")
    if not short:
        raise InputError(f"instruct.seq_len is {seq_len}: all {len(rows)} conversations are longer; raise it")
    unpacked = Dataset.from_list([{"input_ids": ids, "labels": labels(ids, mask)} for ids, mask in kept])
    return pack_dataset(unpacked, seq_len, "bfd")


def taught(config: InstructConfig, rows: list[Row]) -> list[Row]:
    """All conversations and the first so many tasks, in their order."""
    if config.tasks is None:
        return rows
    late = {id(row) for row in [row for row in rows if row["kind"] == "task"][config.tasks :]}
    return [row for row in rows if id(row) not in late]
