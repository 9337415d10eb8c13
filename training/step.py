"""One step of pretraining, and all that it needs: model, optimizer, batches, ranks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer

from data_curation.place import Place
from data_curation.settings import ConfigError
from data_curation.shards import Shards
from training import model as models
from training import optimizers, parallel
from training.attention import kernel_for
from training.batches import Batch, Batches
from training.decoder import Decoder
from training.float8 import UNIT
from training.guard import reason_to_skip
from training.handover import load_state
from training.layout import BLOCK, Layout, layout_of, to_device
from training.mixing import too_often
from training.norms import fusion_for
from training.parallel import Ranks
from training.pretrain import PhaseRun
from training.state import SkippedStep, State, StepRecord

CPU_TOKENS = 2048  # of one forward pass on a CPU: more fall out of its caches
GPU_TOKENS = 32 * 1024
LONG = 32 * 1024  # tokens of a row from which on only attention is kept for the way back


@dataclass(frozen=True)
class Inputs:
    """Folders that a phase starts from; without a last phase it starts anew."""

    shards: str
    """May lie on s3."""
    tokenizer: Path
    model: Path | None
    state: Path | None
    heldout: Path | None = None
    """Documents for the probes after the phase."""


@dataclass(frozen=True)
class Pass:
    """What one pass forward and back takes, on the device."""

    inputs: tuple[Tensor, ...]
    """Tokens, labels, positions."""
    layout: Layout


@dataclass(frozen=True)
class Work:
    """One rank's share of a step."""

    step: int
    parts: list[Batch]
    """Whole rows, for one pass each."""
    first: Pass
    """Of the first part."""
    counted: np.ndarray
    """Labels of the whole batch."""


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
    ahead: Work | None = None
    """The next step's, made while a GPU is busy with this one's."""

    def step(self, state: State) -> None:
        """One optimizer step on one global batch, or none if its gradient is no good; what happened is in the state."""
        work = self.ahead if self.ahead and self.ahead.step == state.step else self._work(state.step)
        # Each rank's gradient is that of its share; FSDP takes the mean over the ranks.
        scale = torch.full((), self.ranks.world / max(1, len(work.counted)), device=self.device)
        losses: list[Tensor] = []
        for number, part in enumerate(work.parts):
            parallel.average_copies(self.decoder, number == len(work.parts) - 1)
            losses.append(self._backward(self._pass(part) if number else work.first, scale))
        values = parallel.loss_and_norm(self.model, torch.stack(losses).sum())
        self.ahead = self._work(state.step + 1) if state.step + 1 < self.run.steps else None
        loss, norm = values.tolist()  # here a GPU is waited for
        why = reason_to_skip(state.history, loss, norm)
        rate = self.run.learning_rate(state.step)
        if why is None:
            parallel.clip(self.model, norm, self.run.clip)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
            read = int(self.token_bytes[work.counted].sum())
            state.history.append(StepRecord(state.step, loss, len(work.counted), read, rate, norm))
        else:
            state.skipped.append(SkippedStep(state.step, why))
        self.optimizer.zero_grad(set_to_none=True)
        state.step += 1

    def devices(self) -> list[str]:
        """Names of the devices of all ranks, which are alike."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        return [name] * self.ranks.world

    def _work(self, step: int) -> Work:
        batch = self.batches.batch(self.run.index, step)  # a thread makes the one after it meanwhile
        counted = batch.labels[batch.labels != models.IGNORED]
        parts = self._micro_batches(_rows(batch, self.ranks.rows(len(batch.tokens))))
        return Work(step, parts, self._pass(parts[0]), counted)

    def _micro_batches(self, batch: Batch) -> list[Batch]:
        """The batch in equal shares of whole rows; the gradient is that of the whole whatever their size."""
        rows, width = batch.tokens.shape
        tokens = self.place.resources.micro_batch_tokens or (CPU_TOKENS if self.device.type == "cpu" else GPU_TOKENS)
        shared = width // (self.ranks.context.ranks if self.ranks.context else 1)
        size = next(size for size in range(max(1, min(rows, tokens // shared)), 0, -1) if rows % size == 0)
        return [_rows(batch, slice(row, row + size)) for row in range(0, rows, size)]

    def _pass(self, part: Batch) -> Pass:
        context = self.ranks.context
        layout = layout_of(part.documents, self.device, self.decoder.kernel, context)
        fields = (part.tokens, part.labels, part.positions)
        cut = [np.ascontiguousarray(context.cut(one) if context else one) for one in fields]
        return Pass(tuple(to_device(one, self.device) for one in cut), layout)

    def _backward(self, one: Pass, scale: Tensor) -> Tensor:
        """Add the share's gradient; returns its share of the batch's mean loss."""
        loss, entropy = self.decoder(*one.inputs, one.layout, scale, self.run.z_loss)
        loss.backward()
        return entropy.detach()


def prepare(run: PhaseRun, inputs: Inputs, place: Place) -> Trainer:
    """Model, optimizer and place in the data as the phase begins. Raises ConfigError or InputError before any work."""
    device = models.settle(place)
    ranks = parallel.connect(device, place.resources.context_ranks)
    tokenizer = AutoTokenizer.from_pretrained(inputs.tokenizer)
    if inputs.model is None:
        model = models.build(run.model, tokenizer, run.rope, run.phase.seq_len, run.seed)
    else:
        model = models.load(inputs.model, run.rope, run.phase.seq_len)
    model = model.to(device).train()
    decoder = decoder_for(run, model, device, run.recompute)
    parallel.shard(decoder, ranks, device, place.resources.shard_ranks)
    optimizer = optimizers.build(run, model)
    shards = Shards(inputs.shards, place.scratch / "shards", int(place.resources.cache_gigabytes * 1e9))
    batches = Batches(shards, seed=run.seed, tokens_per_step=run.tokens_per_step, phases=run.lengths, mixes=run.mixes)
    too_often(place.name, batches.source_epochs(run.index, run.steps), run.max_epochs)  # before the work, not after
    batches.shards.check_tokenizer(inputs.tokenizer)
    _check_shares(run, batches.rows(run.index), ranks, decoder)
    optimizers.begin(model, optimizer)
    if inputs.state is not None:
        batches.resume(load_state(model, optimizer, inputs.state)["data"], run.index - 1)
    sizes = models.bytes_of_tokens(inputs.tokenizer)
    return Trainer(run, place, ranks, tokenizer, model, decoder, optimizer, batches, sizes, device)


def decoder_for(
    run: PhaseRun, model: Any, device: torch.device, recompute: Literal["auto", "none", "attention", "full"]
) -> Decoder:
    """On a CPU eager: compiling would take longer than a small training."""
    cpu = device.type == "cpu"
    if cpu and run.attention not in ("auto", "sdpa"):
        raise ConfigError(f"pretrain.attention is {run.attention}, which needs a GPU: use auto or sdpa")
    kernel = kernel_for(device, run.attention, run.phase.seq_len)
    if recompute == "auto":
        recompute = "none" if cpu or run.phase.seq_len <= LONG else "attention"
    if run.dtype == "float8":
        _check_float8(run, model, device)
    dtype = torch.float32 if run.dtype == "float32" else torch.bfloat16
    return Decoder(model, dtype, kernel, recompute, not cpu, fusion_for(device, run.fusion), run.dtype == "float8")


def _check_float8(run: PhaseRun, model: Any, device: torch.device) -> None:
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (9, 0):
        raise ConfigError("pretrain.dtype is float8, which needs a GPU of compute capability 9.0 or more: use bfloat16")
    if run.phase.seq_len % UNIT:
        raise ConfigError(
            f"pretrain.phases[{run.index}].seq_len is {run.phase.seq_len}: with pretrain.dtype float8 give a multiple "
            f"of {UNIT}"
        )
    for name, parameter in model.model.layers.named_parameters():
        if parameter.ndim == 2 and any(size % UNIT for size in parameter.shape):
            shape = " by ".join(map(str, parameter.shape))
            raise ConfigError(
                f"pretrain.dtype is float8, but {name} is {shape}: products in 8 bits need multiples of {UNIT}: "
                "change the sizes in pretrain.model or use bfloat16"
            )


def _check_shares(run: PhaseRun, rows: int, ranks: Ranks, decoder: Decoder) -> None:
    length = run.phase.seq_len
    if rows % ranks.replicas:
        among = f"{ranks.world}" + (f", {ranks.context.ranks} to a row" if ranks.context else "")
        raise ConfigError(
            f"run.resources.ranks is {among}: a step of {rows} rows of {length} tokens does not go evenly to them: "
            "change pretrain.tokens_per_step or the ranks"
        )
    block = BLOCK if decoder.kernel == "flex" else UNIT if decoder.float8 else 1
    unit = 2 * ranks.context.ranks * block if ranks.context else 1
    if length % unit:
        raise ConfigError(
            f"run.resources.context_ranks is {ranks.world // ranks.replicas}: rows of {length} tokens are no whole "
            f"number of {unit}: change the phase's seq_len or the ranks"
        )


def _rows(batch: Batch, rows: slice) -> Batch:
    return Batch(*(field[rows] for field in (batch.tokens, batch.labels, batch.positions, batch.documents)))
