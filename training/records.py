"""What a phase says of itself when it is over: counts and warnings, curves by step."""

import math

from data_curation.counts import Counts
from data_curation.place import Place
from training.batches import Batches
from training.guard import named
from training.mixing import too_often
from training.pretrain import PhaseRun
from training.state import State


def counts_of(run: PhaseRun, name: str, batches: Batches, state: State) -> Counts:
    """Tokens taken, loss over the last steps, epochs by source, skipped steps."""
    last = state.history[-max(1, min(100, run.steps // 10)) :]
    labels = max(1, sum(record.labels for record in last))
    nats = sum(record.loss * record.labels for record in last)
    read = max(1, sum(record.bytes for record in last))
    epochs = batches.source_epochs(run.index, run.steps)
    skipped = len(state.skipped) + len(state.passed())
    counts = Counts(taken={"tokens": run.steps * run.tokens_per_step}, made={"steps": run.steps})
    counts.metrics = {
        "train_loss": {"value": nats / labels, "n": labels, "standard_error": None},
        "train_bits_per_byte": {"value": nats / math.log(2) / read, "n": read, "standard_error": None},
        "epochs": {"value": batches.epochs(run.index, run.steps), "n": None, "standard_error": None},
        "skipped_steps": {"value": skipped, "n": run.steps, "standard_error": None},
        "skipped_tokens": {"value": skipped * run.tokens_per_step, "n": None, "standard_error": None},
        "rewinds": {"value": len(state.rewinds), "n": None, "standard_error": None},
    }
    if state.skipped:
        step = state.skipped[-1]
        counts.warnings.append(
            f"{name}: {len(state.skipped)} of {run.steps} steps were skipped, the last one, {step.step}, because "
            f"{step.why}"
        )
    for rewind in state.rewinds:
        documents = batches.documents(run.index, range(rewind.first, rewind.stop))
        counts.warnings.append(
            f"{name}: steps {rewind.first} to {rewind.stop - 1} were stepped over, because {rewind.why}; of documents "
            f"{named(documents)}, all of them in records/skipped.json"
        )
    for source, times in epochs.items() if len(epochs) > 1 else ():
        counts.metrics[f"epochs_{source}"] = {"value": times, "n": None, "standard_error": None}
    counts.warnings += too_often(name, epochs, run.max_epochs)
    return counts


def keep_curves(run: PhaseRun, place: Place, state: State) -> None:
    """Plots of loss, learning rate and gradient norm over the tokens."""
    at = [(run.earlier_steps + record.step + 1) * run.tokens_per_step / 1e6 for record in state.history]
    title, x = f"phase of {run.phase.seq_len} tokens", "million tokens"
    series = {
        "loss": ("Training loss", "nats per token", [record.loss for record in state.history]),
        "learning-rate": ("Learning rate", "learning rate", [record.learning_rate for record in state.history]),
        "gradient-norm": ("Gradient norm before clipping", "norm", [record.gradient_norm for record in state.history]),
    }
    for name, (what, y, values) in series.items():
        place.plot(name, f"{what}, {title}", x, y, {name: list(zip(at, values, strict=True))})


def keep_skipped(run: PhaseRun, place: Place, batches: Batches, state: State) -> None:
    """Every step that was not taken, why, and the ids of the documents that it read."""
    steps = [(step.step, step.why) for step in state.skipped]
    steps += [(step, rewind.why) for rewind in state.rewinds for step in range(rewind.first, rewind.stop)]
    place.record(
        "skipped",
        [
            {"step": step, "why": why, "documents": batches.documents(run.index, [step])}
            for step, why in sorted(dict(steps).items())
        ],
    )
