"""The other side of benchmarks/align_gpu.py: plain TRL scripts, equal to our stages in data, batch, length, numbers."""

import gc
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.align_gpu_scales import Scale
from benchmarks.align_gpu_stages import Clock, place_of, published
from data_curation.counts import Counts
from data_curation.documents import read_rows
from training.curriculum import prompt_order, teachable, usable_tasks
from training.instruct import taught
from training.trainers import device_of

PEERS = {"instruct": "SFTTrainer", "prefer": "DPOTrainer", "reinforce": "GRPOTrainer", "vllm": "GRPOTrainer"}
"""Stage -> what a user would take instead."""


def run(name: str, scale: Scale, folder: Path, device: Any) -> Iterator[dict[str, Any]]:
    """Train by TRL alone what a stage trained, once per way of using it, until step `scale.last`."""
    place = place_of(name, scale, folder, device)
    cuda = device_of(place) == "cuda"
    for way, settings in _ways(name, folder).items():
        clock = Clock(scale.warm, scale.last, ends=True)
        out = folder / "trl" / name
        given = {"output_dir": str(out), "bf16": cuda, "use_cpu": not cuda, "report_to": "none", "seed": 0,
                 "save_strategy": "no", "disable_tqdm": True, "logging_first_step": True} | settings  # fmt: skip
        _trainer(name, scale, folder, given, clock).train()
        shutil.rmtree(out, ignore_errors=True)
        gc.collect()  # the last trainer's weights must not stand in the way of the next one's
        yield {"peer": PEERS[name], "way": way, "trainer": clock.found}


def _ways(name: str, folder: Path) -> dict[str, dict[str, Any]]:
    """Names and arguments: as many rows a pass as ours, without recomputing; then as TRL's defaults have it."""
    plain, default = {"gradient_checkpointing": False}, {"gradient_checkpointing": True}
    ours = json.loads((folder / f"{name}.json").read_text())
    rows, size = ours["rows_a_pass"], ours["rows_a_step"]

    def of(rows: int) -> dict[str, Any]:
        return {"per_device_train_batch_size": rows, "gradient_accumulation_steps": size // rows}

    if name == "vllm":
        return {"our rows a pass": of(rows) | plain | {"use_vllm": True, "vllm_mode": "colocate"}}
    if name != "instruct":
        return {"our rows a pass": of(rows) | plain, "recomputing": of(rows) | default}
    # TRL lays the rows of a pass end to end: each pass costs the square of its length, so fewer may be faster.
    few = of(max(1, rows // 4))
    return {"our rows a pass": of(rows) | plain, "a quarter of them": few | plain, "recomputing": few | default}


def _trainer(name: str, scale: Scale, folder: Path, given: dict[str, Any], clock: Clock) -> Any:
    make = {"instruct": _sft, "prefer": _dpo}.get(name, _grpo)
    return make(scale, folder, given, clock)


def _sft(scale: Scale, folder: Path, given: dict[str, Any], clock: Clock) -> Any:
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from training.chat import encode_all

    config = scale.instruct
    rows = taught(config, _rows(folder, "dialogues", "train"))
    arguments = SFTConfig(
        learning_rate=config.learning_rate, lr_scheduler_type=config.schedule, warmup_steps=config.warmup,
        num_train_epochs=config.epochs, max_length=config.seq_len, packing=True, assistant_only_loss=True, **given,
    )  # fmt: skip
    # Our stage drops what is longer than a row; TRL would cut it, and the data would not be equal.
    encoded = encode_all(AutoTokenizer.from_pretrained(_model("base", folder)), [row["messages"] for row in rows])
    kept = [row for row, (ids, _) in zip(rows, encoded, strict=True) if len(ids) <= (config.seq_len or 1 << 30)]
    data = Dataset.from_list([{"messages": row["messages"]} for row in kept])
    return SFTTrainer(model=_model("base", folder), args=arguments, train_dataset=data, callbacks=[clock])


def _dpo(scale: Scale, folder: Path, given: dict[str, Any], clock: Clock) -> Any:
    from datasets import Dataset
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    config = scale.prefer
    weights = {"loss_type": [config.loss_type, "sft"], "loss_weights": [1.0, config.likelihood]}
    arguments = DPOConfig(
        learning_rate=config.learning_rate, warmup_steps=config.warmup, num_train_epochs=config.epochs,
        beta=config.beta, max_length=config.max_length, **weights, **given,
    )  # fmt: skip
    data = Dataset.from_list(
        [
            {"prompt": row["prompt"]}
            | {side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")}
            for row in _rows(folder, "pairs", "train")
        ]
    )
    return DPOTrainer(model=_model("instruct", folder), args=arguments, train_dataset=data, callbacks=[clock])


def _grpo(scale: Scale, folder: Path, given: dict[str, Any], clock: Clock) -> Any:
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    from training.reinforce import verifier_reward

    config, model = scale.reinforce, _model("instruct", folder)
    arguments = GRPOConfig(
        learning_rate=config.learning_rate, lr_scheduler_type="constant_with_warmup", warmup_steps=config.warmup,
        max_steps=config.steps, num_generations=config.samples, beta=config.beta, shuffle_dataset=False,
        temperature=config.temperature, max_completion_length=config.max_new_tokens, **given,
    )  # fmt: skip
    data = Dataset.from_list(_prompts(scale, folder)).select(prompt_order(len(_prompts(scale, folder)), config))
    reward: Any = verifier_reward(AutoTokenizer.from_pretrained(model).eos_token_id)
    return GRPOTrainer(
        model=model, reward_funcs=reward, args=arguments, train_dataset=data, callbacks=[clock]
    )  # fmt: skip


def _prompts(scale: Scale, folder: Path) -> list[dict[str, Any]]:
    """The tasks that our stage trained on: those of families that were neither solved nor out of reach."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config, talks = scale.reinforce, published("dialogues", folder)
    known = json.loads((folder / "reinforce" / "work" / "pieces" / "known.json").read_text())["note"]["verified"]
    model = _model("instruct", folder)
    policy, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    train, dev, _ = usable_tasks(config, policy, tokenizer, talks, Counts())
    rows = teachable(config, train, dev, known, Counts())
    return [{"prompt": row["messages"][:-1], "task": row["task"]} for row in rows]


def _rows(folder: Path, name: str, part: str) -> list[dict[str, Any]]:
    return [row for uri in published(name, folder).uris(part, ".parquet") for row in read_rows(uri)]


def _model(name: str, folder: Path) -> str:
    return str(folder / name / "model")
