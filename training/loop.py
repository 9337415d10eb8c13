"""The training loop of one phase: batches in, a model and its optimizer's state out."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer

from data_curation.counts import Counts
from data_curation.place import Place
from data_curation.settings import ConfigError, TransientError
from data_curation.shards import Shards
from training import model as models
from training import optimizers, parallel
from training.attention import kernel_for, layout_of
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
from training.decoder import Decoder
from training.guard import reason_to_skip, skip
from training.launch import ALIVE
from training.mixing import too_often
from training.parallel import Ranks
from training.pretrain import PhaseRun
from training.records import counts_of, keep_curves
from training.stop import on_sigterm

CPU_TOKENS = 2048  # of one forward pass on a CPU: more fall out of its caches
GPU_TOKENS = 32 * 1024
LONG = 32 * 1024  # tokens of a row from which on only attention is kept for the way back


@dataclass
class Trainer:
    """What a step needs."""

    run: PhaseRun
    place: Place
    ranks: Ranks
    tokenizer: Any
    model: Any
    decoder: Decoder
    optimizer: torch.optim.Optimizer
    batches: Batches
    token_bytes: np.ndarray
    device: torch.device

    def step(self, state: State) -> None:
        """One optimizer step on one global batch, or none if its gradient is no good; what happened is in the state."""
        batch = self.batches.batch(self.run.index, state.step)  # the next one is made meanwhile
        counted = batch.labels[batch.labels != models.IGNORED]
        # Each rank's gradient is that of its share; FSDP takes the mean over the ranks.
        scale = torch.tensor(self.ranks.world / max(1, len(counted)), device=self.device)
        share = _rows(batch, self.ranks.rows(len(batch.tokens)))
        entropies = [self._backward(part, scale) for part in self._micro_batches(share)]
        [loss] = self.ranks.total([float(torch.stack(entropies).sum()) / self.ranks.world], self.device)
        norm = parallel.clip(self.model, self.run.clip)
        why = reason_to_skip(state.history, loss, norm)
        rate = self.run.learning_rate(state.step)
        if why is None:
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
            read = int(self.token_bytes[counted].sum())
            state.history.append(StepRecord(state.step, loss, len(counted), read, rate, norm))
        else:
            skip(self.place.name, state, why)
        self.optimizer.zero_grad(set_to_none=True)
        state.step += 1

    def _micro_batches(self, batch: Batch) -> list[Batch]:
        """The batch in equal shares of whole rows; the gradient is that of the whole whatever their size."""
        rows, width = batch.tokens.shape
        tokens = self.place.resources.micro_batch_tokens or (CPU_TOKENS if self.device.type == "cpu" else GPU_TOKENS)
        size = next(size for size in range(max(1, min(rows, tokens // width)), 0, -1) if rows % size == 0)
        return [_rows(batch, slice(row, row + size)) for row in range(0, rows, size)]

    def _backward(self, batch: Batch, scale: Tensor) -> Tensor:
        """Add the share's gradient; returns its share of the batch's mean loss."""
        layout = layout_of(batch.documents, self.device, self.decoder.kernel)
        tensors = [torch.from_numpy(field).to(self.device) for field in (batch.tokens, batch.labels, batch.positions)]
        loss, entropy = self.decoder(*tensors, layout, scale, self.run.z_loss)
        loss.backward()
        return entropy.detach()


def _rows(batch: Batch, rows: slice) -> Batch:
    return Batch(*(field[rows] for field in (batch.tokens, batch.labels, batch.positions, batch.documents)))


@dataclass(frozen=True)
class Inputs:
    """Folders that a phase starts from; without a last phase it starts anew."""

    shards: str
    """May lie on s3."""
    tokenizer: Path
    model: Path | None
    state: Path | None


def train(run: PhaseRun, inputs: Inputs, place: Place) -> Counts:
    """Train one phase and publish parts `model` and `state`; every rank runs this, the first one writes."""
    trainer = _prepare(run, inputs, place)
    first = trainer.ranks.rank == 0
    found = load_checkpoint(place, trainer.model, trainer.optimizer)
    now = State() if found is None else found[0]
    if found is not None:
        trainer.batches.resume(found[1], run.index)
    trainer.ranks.wait()  # nobody drops a checkpoint that another one still reads
    steps, seconds = _steps(trainer, now)
    counts = counts_of(run, place.name, trainer.batches, now)
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    counts.metrics["parameters"] = {"value": parameters, "n": None, "standard_error": None}
    if steps:
        speed = steps * run.tokens_per_step / seconds
        counts.metrics["tokens_per_second"] = {"value": speed, "n": steps, "standard_error": None}
    counters = {
        "steps": run.earlier_steps + run.steps,
        "tokens": (run.earlier_steps + run.steps) * run.tokens_per_step,
        "data": trainer.batches.state(run.index, run.steps),
    }
    save_state(trainer.model, trainer.optimizer, counters, place.scratch / "state", first)
    parallel.gather(trainer.model)
    if first:
        _publish(trainer, now, inputs, counts)
    trainer.ranks.wait()
    return counts


def _publish(trainer: Trainer, state: State, inputs: Inputs, counts: Counts) -> None:
    place = trainer.place
    keep_curves(trainer.run, place, state)
    with place.piece("model") as piece:
        piece.piece.counts = counts
        models.save(trainer.model, trainer.tokenizer, inputs.tokenizer, place.scratch / "model")
        piece.send("model", place.scratch / "model")
        piece.send("state", place.scratch / "state")
    drop_checkpoints(place, 0)


def _prepare(run: PhaseRun, inputs: Inputs, place: Place) -> Trainer:
    device = models.settle(place)
    ranks = parallel.connect(device)
    tokenizer = AutoTokenizer.from_pretrained(inputs.tokenizer)
    if inputs.model is None:
        model = models.build(run.model, tokenizer, run.rope, run.phase.seq_len, run.seed)
    else:
        model = models.load(inputs.model, run.rope, run.phase.seq_len)
    model = model.to(device).train()
    decoder = _decoder(run, model, device)
    parallel.shard(decoder, ranks, device)
    optimizer = optimizers.build(run, model)
    shards = Shards(inputs.shards, place.scratch / "shards", int(place.resources.cache_gigabytes * 1e9))
    batches = Batches(shards, seed=run.seed, tokens_per_step=run.tokens_per_step, phases=run.lengths, mixes=run.mixes)
    too_often(place.name, batches.source_epochs(run.index, run.steps), run.max_epochs)  # before the work, not after
    batches.shards.check_tokenizer(inputs.tokenizer)
    if batches.rows(run.index) % ranks.world:
        raise ConfigError(
            f"run.resources.ranks is {ranks.world}: a step of {batches.rows(run.index)} rows of {run.phase.seq_len} "
            "tokens does not go evenly to them: change pretrain.tokens_per_step or the ranks"
        )
    if inputs.state is not None:
        batches.resume(load_state(model, optimizer, inputs.state)["data"], run.index - 1)
    sizes = models.bytes_of_tokens(inputs.tokenizer)
    return Trainer(run, place, ranks, tokenizer, model, decoder, optimizer, batches, sizes, device)


def _decoder(run: PhaseRun, model: Any, device: torch.device) -> Decoder:
    """On a CPU eager: compiling would take longer than a small training."""
    cpu = device.type == "cpu"
    if cpu and run.attention not in ("auto", "sdpa"):
        raise ConfigError(f"pretrain.attention is {run.attention}, which needs a GPU: use auto or sdpa")
    kernel = kernel_for(device, run.attention, run.phase.seq_len)
    recompute = run.recompute
    if recompute == "auto":
        recompute = "none" if cpu or run.phase.seq_len <= LONG else "attention"
    dtype = torch.bfloat16 if run.dtype == "bfloat16" else torch.float32
    return Decoder(model, dtype, kernel, recompute, compile=not cpu)


def _steps(trainer: Trainer, state: State) -> tuple[int, float]:
    """All steps that are left, with checkpoints between; returns their number and seconds."""
    run, place = trainer.run, trainer.place
    progress = place.progress("tokens", run.steps * run.tokens_per_step)
    progress.done = state.step * run.tokens_per_step
    first, begin = state.step, time.monotonic()
    saved, asked = begin, threading.Event()
    with on_sigterm(asked.set):
        while state.step < run.steps:
            trainer.step(state)
            now = time.monotonic()
            if trainer.ranks.rank == 0:
                (place.scratch / ALIVE).touch()
                loss = f"loss {state.history[-1].loss:.3f}, " if state.history else ""
                speed = (state.step - first) * run.tokens_per_step / (now - begin)
                progress.update(run.tokens_per_step, f"{loss}{speed:,.0f} tokens/s")
            if _save_if_due(trainer, state, now - saved >= place.resources.checkpoint_seconds, asked.is_set()):
                saved = time.monotonic()
    return state.step - first, time.monotonic() - begin


def _save_if_due(trainer: Trainer, state: State, due: bool, asked: bool) -> bool:
    """A checkpoint, if it is time or SIGTERM `asked` for the end, which then follows; all ranks do the same."""
    left = state.step < trainer.run.steps
    # After a skipped step none is made: it may have gone wrong before.
    taken = not state.skipped or state.skipped[-1].step < state.step - 1
    first = trainer.ranks.rank == 0  # whose clock decides for all
    totals = trainer.ranks.total([float(due and taken and first), float(asked)], trainer.device)
    due, asked = left and totals[0] > 0, left and totals[1] > 0
    if due or (asked and taken):
        data = trainer.batches.state(trainer.run.index, state.step)
        save_checkpoint(trainer.place, trainer.model, trainer.optimizer, state, data, first)
    if asked:
        raise TransientError(f"{trainer.place.name}: SIGTERM ended it after step {state.step}; run it again to go on")
    return due
