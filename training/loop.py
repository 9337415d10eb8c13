"""The training loop of one phase: steps, checkpoints, returns to earlier ones; a model and its state at the end."""

import logging
import threading
import time
from pathlib import Path
from typing import Any

import torch

from data_curation.counts import Counts
from data_curation.place import Place
from data_curation.settings import TransientError
from training import model as models
from training import parallel
from training.checkpoint import Checkpoints
from training.guard import give_up, named, reason_to_rewind
from training.handover import save_state
from training.launch import ALIVE
from training.memory import full
from training.metrics import Metrics
from training.pretrain import PhaseRun
from training.probes import after_phase
from training.records import counts_of, keep_curves, keep_skipped
from training.speed import mfu
from training.state import Rewind, State
from training.step import Inputs, Trainer, prepare
from training.stop import ended_when_silent, on_sigterm

log = logging.getLogger("tokenmill")


def train(run: PhaseRun, inputs: Inputs, place: Place) -> Counts:
    """Train one phase and publish parts `model` and `state`; every rank runs this, the first one writes."""
    trainer = prepare(run, inputs, place)
    first = trainer.ranks.rank == 0
    metrics = Metrics(run, place, len(trainer.tokenizer), trainer.devices())
    with Checkpoints(place, trainer.ranks, trainer.model, trainer.optimizer) as checkpoints, metrics:
        state, steps, seconds = Loop(trainer, checkpoints, metrics).run()
    counts = counts_of(run, place.name, trainer.batches, state)
    counts.warnings += metrics.warnings
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    counts.metrics["parameters"] = {"value": parameters, "n": None, "standard_error": None}
    if steps:
        speed = steps * run.tokens_per_step / seconds
        counts.metrics["tokens_per_second"] = {"value": speed, "n": steps, "standard_error": None}
        if used := mfu(speed, metrics.flops, metrics.devices):
            counts.metrics["mfu"] = {"value": used, "n": steps, "standard_error": None}
    if stalls := checkpoints.stalls[1:]:  # the first one takes the memory for all
        counts.metrics["checkpoint_stall_seconds"] = {"value": max(stalls), "n": len(stalls), "standard_error": None}
    counters = {
        "steps": run.earlier_steps + run.steps,
        "tokens": (run.earlier_steps + run.steps) * run.tokens_per_step,
        "data": trainer.batches.state(run.index, run.steps),
    }
    save_state(trainer.model, trainer.optimizer, counters, place.scratch / "state", first)
    parallel.gather(trainer.model)
    counts.add(after_phase(trainer, inputs))
    if first:
        (place.scratch / ALIVE).touch()  # to publish takes a time of its own
        _publish(trainer, state, inputs, counts)
    trainer.ranks.wait()
    return counts


def _publish(trainer: Trainer, state: State, inputs: Inputs, counts: Counts) -> None:
    place = trainer.place
    keep_curves(trainer.run, place, state)
    keep_skipped(trainer.run, place, trainer.batches, state)
    with place.piece("model") as piece:
        piece.piece.counts = counts
        models.save(trainer.model, trainer.tokenizer, inputs.tokenizer, place.scratch / "model")
        piece.send("model", place.scratch / "model")
        piece.send("state", place.scratch / "state")
    for old in place.pieces():
        if old.name != "model":
            place.drop(old)


def train_given(given: dict[str, Any], place: Place) -> None:
    """`train` on a rank, of what its launcher wrote down."""
    paths = given["inputs"]
    folders = [None if paths[name] is None else Path(paths[name]) for name in ("model", "state", "heldout")]
    train(PhaseRun(**given["run"]), Inputs(paths["shards"], Path(paths["tokenizer"]), *folders), place)


class Loop:
    """The steps of one phase from wherever its newest checkpoint is."""

    def __init__(self, trainer: Trainer, checkpoints: Checkpoints, metrics: Metrics) -> None:
        self.trainer, self.checkpoints, self.metrics = trainer, checkpoints, metrics
        self.steps, self.begin = 0, time.monotonic()

    def run(self) -> tuple[State, int, float]:
        """All steps that are left; returns the state at the end, the number of steps and their seconds."""
        trainer, asked = self.trainer, threading.Event()
        seconds = trainer.place.resources.stall_seconds if trainer.ranks.world == 1 else None
        with ended_when_silent(seconds) as alive, on_sigterm(asked.set):
            state = self._start()
            self.begin = saved = time.monotonic()
            while state.step < trainer.run.steps:
                if state.step in (passed := state.passed()):
                    state.step = next(step for step in range(state.step, trainer.run.steps + 1) if step not in passed)
                    continue
                self._step(state)
                alive()
                self._say(state)
                if state.skipped and state.skipped[-1].step == state.step - 1 and (rewind := reason_to_rewind(state)):
                    state = self._rewind(state, rewind)
                elif self._save_if_due(state, time.monotonic() - saved, asked.is_set()):
                    saved = time.monotonic()
        return state, self.steps, time.monotonic() - self.begin

    def _step(self, state: State) -> None:
        try:
            self.trainer.step(state)
        except torch.OutOfMemoryError as error:
            less = (
                "lower run.resources.micro_batch_tokens, set pretrain.recompute to full, or take more "
                "run.resources.ranks"
            )
            raise full(self.trainer.place.name, less, error) from error

    def _start(self) -> State:
        """Where the newest checkpoint is. A phase that begins makes one at once: a store that cannot be written to
        shows now, and there is always something to return to."""
        trainer = self.trainer
        found = self.checkpoints.load()
        if found is None:
            state = State()
            self._save(state)
        else:
            state = found[0]
            trainer.batches.resume(found[1], trainer.run.index)
        self._tell_from(state)
        return state

    def _tell_from(self, state: State) -> None:
        if self.trainer.ranks.rank == 0:
            self.metrics.begin(state)

    def _say(self, state: State) -> None:
        self.steps += 1
        if self.trainer.ranks.rank == 0:
            (self.trainer.place.scratch / ALIVE).touch()
            self.metrics.step(state, len(state.skipped) + len(state.passed()))

    def _rewind(self, state: State, rewind: Rewind) -> State:
        """Return to the last checkpoint before what went wrong and step over the data since; all ranks do the same."""
        trainer, name = self.trainer, self.trainer.place.name
        self.checkpoints.wait()
        rewind = self.checkpoints.within(rewind)
        bad = State(rewinds=[*state.rewinds, rewind])
        first = trainer.ranks.rank == 0
        documents = trainer.batches.documents(trainer.run.index, sorted(bad.passed())) if first else []
        if first:
            keep_skipped(trainer.run, trainer.place, trainer.batches, bad)
        give_up(name, state, rewind, documents)
        self.checkpoints.rewind(rewind)
        found = self.checkpoints.load()
        assert found is not None
        if first:
            log.warning(
                "%s: %s: it goes on from step %d and steps over steps %d to %d, of documents %s",
                name, rewind.why, found[0].step, rewind.first, rewind.stop - 1, named(documents),
            )  # fmt: skip
        self._tell_from(found[0])
        return found[0]

    def _save_if_due(self, state: State, seconds: float, asked: bool) -> bool:
        """A checkpoint, if it is time or SIGTERM `asked` for the end, which then follows; all ranks do the same."""
        trainer, resources = self.trainer, self.trainer.place.resources
        if state.step == trainer.run.steps:
            return False
        self.checkpoints.check()
        due = seconds >= resources.checkpoint_seconds
        if resources.checkpoint_steps is not None:
            due = due or state.step % resources.checkpoint_steps == 0
        # The first rank's clock decides for all.
        totals = trainer.ranks.total([float(due and trainer.ranks.rank == 0), float(asked)], trainer.device)
        due, asked = totals[0] > 0, totals[1] > 0
        if due or asked:
            self._save(state)
        if asked:
            self.checkpoints.wait()
            name = trainer.place.name
            raise TransientError(f"{name}: SIGTERM ended it after step {state.step}; run it again to go on")
        return due

    def _save(self, state: State) -> None:
        trainer = self.trainer
        self.checkpoints.save(state, trainer.batches.state(trainer.run.index, state.step))
