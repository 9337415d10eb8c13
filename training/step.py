"""One step of pretraining, and all that it needs: model, optimizer, batches, ranks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer

from data_curation.place import Place
from data_curation.shards import Shards
from training import model as models
from training import optimizers, parallel
from training.batches import Batch, Batches
from training.decoder import Decoder
from training.guard import reason_to_skip
from training.handover import load_state
from training.layout import Layout, layout_of, to_device
from training.mixing import too_often
from training.parallel import Ranks
from training.passes import check_length, check_rows, decoder_for, passes_of
from training.pretrain import PhaseRun
from training.state import SkippedStep, State, StepRecord


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
    pass_rows: int
    """Rows of one pass forward and back."""
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
        rows = range(0, len(batch.tokens), self.pass_rows)
        return [_rows(batch, slice(row, row + self.pass_rows)) for row in rows]

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
    shards = Shards(inputs.shards, place.scratch / "shards", int(place.resources.cache_gigabytes * 1e9))
    batches = Batches(shards, seed=run.seed, tokens_per_step=run.tokens_per_step, phases=run.lengths, mixes=run.mixes)
    too_often(place.name, batches.source_epochs(run.index, run.steps), run.max_epochs)  # before the work, not after
    batches.shards.check_tokenizer(inputs.tokenizer)
    check_rows(run, ranks)
    passes = passes_of(run, model, ranks, device, place)
    decoder = decoder_for(run, model, device, passes.recompute)
    check_length(run, ranks, decoder)
    parallel.shard(decoder, ranks, device, place.resources.shard_ranks)
    optimizer = optimizers.build(run, model)
    optimizers.begin(model, optimizer)
    if inputs.state is not None:
        batches.resume(load_state(model, optimizer, inputs.state)["data"], run.index - 1)
    sizes = models.bytes_of_tokens(inputs.tokenizer)
    return Trainer(run, place, ranks, tokenizer, model, decoder, optimizer, batches, sizes, device, passes.rows)


def _rows(batch: Batch, rows: slice) -> Batch:
    return Batch(*(field[rows] for field in (batch.tokens, batch.labels, batch.positions, batch.documents)))
