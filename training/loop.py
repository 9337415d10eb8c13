"""The training loop of one phase: batches in, a model and its optimizer's state out."""

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoTokenizer

from data_curation.counts import Counts
from data_curation.place import Place
from data_curation.shards import Shards
from training import model as models
from training.batches import Batch, Batches
from training.checkpoint import (
    State,
    StepRecord,
    drop_checkpoints,
    load_checkpoint,
    load_state,
    save_checkpoint,
    save_state,
)
from training.mixing import too_often
from training.pretrain import PhaseRun

CPU_TOKENS = 2048  # of one forward pass on a CPU: more fall out of its caches


@dataclass
class Trainer:
    """What a step needs."""

    run: PhaseRun
    place: Place
    tokenizer: Any
    model: Any
    optimizer: torch.optim.Optimizer
    batches: Batches
    token_bytes: np.ndarray
    device: torch.device

    def step(self, state: State) -> None:
        """One optimizer step on one global batch; its record goes into the state."""
        batch = self.batches.batch(self.run.index, state.step)
        labels = int((batch.labels != models.IGNORED).sum())
        loss = sum(self._backward(share, labels) for share in self._micro_batches(batch))
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), self.run.clip))
        state.check_finite(self.place.name, loss, norm)
        rate = self.run.learning_rate(state.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        read = int(self.token_bytes[batch.labels[batch.labels != models.IGNORED]].sum())
        state.history.append(StepRecord(loss, labels, read, rate, norm))
        state.step += 1

    def _micro_batches(self, batch: Batch) -> list[Batch]:
        """The batch in shares of whole rows; the gradient is that of the whole whatever their size."""
        rows, width = batch.tokens.shape
        wanted = self.place.resources.micro_batch_tokens or (CPU_TOKENS if self.device.type == "cpu" else 32 * 1024)
        size = max(1, wanted // width)
        fields = (batch.tokens, batch.labels, batch.positions, batch.documents)
        return [Batch(*(field[row : row + size] for field in fields)) for row in range(0, rows, size)]

    def _backward(self, batch: Batch, labels: int) -> float:
        """Add the share's gradient; returns its share of the batch's mean loss."""
        packing = models.Packing.of(batch.documents, self.device)
        tensors = [torch.from_numpy(field).to(self.device) for field in (batch.tokens, batch.labels, batch.positions)]
        low = self.run.dtype == "bfloat16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=low):
            losses = models.token_losses(self.model, *tensors, packing=packing)
        loss = losses.sum() / max(1, labels)
        loss.backward()
        return loss.item()


@dataclass(frozen=True)
class Inputs:
    """Folders that a phase starts from; without a last phase it starts anew."""

    shards: str
    """May lie on s3."""
    tokenizer: Path
    model: Path | None
    state: Path | None


def train(run: PhaseRun, inputs: Inputs, place: Place) -> Counts:
    """Train one phase and publish parts `model` and `state`."""
    trainer = _prepare(run, inputs, place)
    found = load_checkpoint(place, trainer.model, trainer.optimizer)
    now = State() if found is None else found[0]
    if found is not None:
        trainer.batches.resume(found[1], run.index)
    counts = _counts(trainer, now, *_steps(trainer, now))
    _plots(trainer, now)
    with place.piece("model") as piece:
        piece.piece.counts = counts
        models.save(trainer.model, trainer.tokenizer, inputs.tokenizer, place.scratch / "model")
        piece.send("model", place.scratch / "model")
        steps = run.earlier_steps + run.steps
        data = trainer.batches.state(run.index, run.steps)
        counters = {"steps": steps, "tokens": steps * run.tokens_per_step, "data": data}
        save_state(trainer.model, trainer.optimizer, counters, place.scratch / "state")
        piece.send("state", place.scratch / "state")
    drop_checkpoints(place, 0)
    return counts


def _prepare(run: PhaseRun, inputs: Inputs, place: Place) -> Trainer:
    device = models.settle(place)
    tokenizer = AutoTokenizer.from_pretrained(inputs.tokenizer)
    if inputs.model is None:
        model = models.build(run.model, tokenizer, run.phase.rope_theta, run.phase.seq_len, run.seed)
    else:
        model = models.load(inputs.model, run.phase.rope_theta, run.phase.seq_len)
    model = model.to(device).train()
    optimizer = _optimizer(run, model)
    shards = Shards(inputs.shards, place.scratch / "shards", int(place.resources.cache_gigabytes * 1e9))
    batches = Batches(shards, seed=run.seed, tokens_per_step=run.tokens_per_step, phases=run.lengths, mixes=run.mixes)
    too_often(place.name, batches.source_epochs(run.index, run.steps), run.max_epochs)  # before the work, not after
    batches.shards.check_tokenizer(inputs.tokenizer)
    if inputs.state is not None:
        batches.resume(load_state(model, optimizer, inputs.state)["data"], run.index - 1)
    return Trainer(run, place, tokenizer, model, optimizer, batches, models.bytes_of_tokens(inputs.tokenizer), device)


def _optimizer(run: PhaseRun, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW that decays matrices only: not norms, and not embeddings, whose rows are rarely seen."""
    names = dict(model.named_parameters())
    decayed = [p for name, p in names.items() if p.ndim == 2 and "embed_tokens" not in name and "lm_head" not in name]
    chosen = {id(parameter) for parameter in decayed}
    rest = [parameter for parameter in names.values() if id(parameter) not in chosen]
    groups = [{"params": decayed, "weight_decay": run.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=run.betas, fused=True)


def _steps(trainer: Trainer, state: State) -> tuple[int, float]:
    """All steps that are left, with checkpoints between; returns their number and seconds."""
    run, place = trainer.run, trainer.place
    progress = place.progress("tokens", run.steps * run.tokens_per_step)
    progress.done = state.step * run.tokens_per_step
    first, begin = state.step, time.monotonic()
    saved = begin
    while state.step < run.steps:
        trainer.step(state)
        now = time.monotonic()
        speed = (state.step - first) * run.tokens_per_step / (now - begin)
        progress.update(run.tokens_per_step, f"loss {state.history[-1].loss:.3f}, {speed:,.0f} tokens/s")
        if state.step < run.steps and now - saved >= place.resources.checkpoint_seconds:
            save_checkpoint(
                place, trainer.model, trainer.optimizer, state, trainer.batches.state(run.index, state.step)
            )
            saved = time.monotonic()
    return state.step - first, time.monotonic() - begin


def _counts(trainer: Trainer, state: State, steps: int, seconds: float) -> Counts:
    run = trainer.run
    last = state.history[-max(1, min(100, run.steps // 10)) :]
    labels = sum(record.labels for record in last)
    nats = sum(record.loss * record.labels for record in last)
    read = max(1, sum(record.bytes for record in last))
    tokens = run.steps * run.tokens_per_step
    epochs = trainer.batches.source_epochs(run.index, run.steps)
    counts = Counts(taken={"tokens": tokens}, made={"steps": run.steps})
    counts.metrics = {
        "train_loss": {"value": nats / labels, "n": labels, "standard_error": None},
        "train_bits_per_byte": {"value": nats / math.log(2) / read, "n": read, "standard_error": None},
        "parameters": {"value": sum(p.numel() for p in trainer.model.parameters()), "n": None, "standard_error": None},
        "epochs": {"value": trainer.batches.epochs(run.index, run.steps), "n": None, "standard_error": None},
    }
    if steps:
        speed = steps * run.tokens_per_step / seconds
        counts.metrics["tokens_per_second"] = {"value": speed, "n": steps, "standard_error": None}
        trainer.place.record("speed", {"steps": steps, "seconds": seconds, "tokens_per_second": speed})
    for source, times in epochs.items() if len(epochs) > 1 else ():
        counts.metrics[f"epochs_{source}"] = {"value": times, "n": None, "standard_error": None}
    counts.warnings += too_often(trainer.place.name, epochs, run.max_epochs)
    return counts


def _plots(trainer: Trainer, state: State) -> None:
    run, place = trainer.run, trainer.place
    at = [(run.earlier_steps + step + 1) * run.tokens_per_step / 1e6 for step in range(len(state.history))]
    title, x = f"phase of {run.phase.seq_len} tokens", "million tokens"
    series = {
        "loss": ("Training loss", "nats per token", [record.loss for record in state.history]),
        "learning-rate": ("Learning rate", "learning rate", [record.learning_rate for record in state.history]),
        "gradient-norm": ("Gradient norm before clipping", "norm", [record.gradient_norm for record in state.history]),
    }
    for name, (what, y, values) in series.items():
        place.plot(name, f"{what}, {title}", x, y, {name: list(zip(at, values, strict=True))})
    place.record("steps", [asdict(record) for record in state.history])
