"""Which steps are skipped, and when training returns to an earlier checkpoint: non-numbers, spikes, many of them."""

import math
from collections.abc import Sequence

import numpy as np

from data_curation.settings import StageError
from training.state import Rewind, State, StepRecord

WINDOW = 128
SIGMAS = 6.0
"""A loss or gradient norm so far above the mean of the last WINDOW steps is a spike (OLMo-core's values)."""
MANY, AMONG = 5, 10
"""So many skipped steps among so many are no accident: data or an update before them spoilt the model."""
BEFORE = 8
"""Steps before the first skipped one that may be the cause and are stepped over too; each rewind doubles them."""
REWINDS, LASTING = 3, 1000
"""After so many rewinds in so many steps training is given up."""
NAMED = 5  # ids of documents in a message; all are in the records


def reason_to_skip(history: Sequence[StepRecord], loss: float, norm: float) -> str | None:
    """Why a step must not be taken, or None. All ranks come to one answer, for they have the same numbers."""
    recent = history[-WINDOW:]
    for what, value, before in (
        ("loss", loss, [record.loss for record in recent]),
        ("gradient norm", norm, [record.gradient_norm for record in recent]),
    ):
        if not math.isfinite(value):
            return f"{what} is {value}"
        if len(before) < WINDOW // 2:
            continue
        mean, sigma = float(np.mean(before)), float(np.std(before))
        if value > mean + SIGMAS * sigma:
            return f"{what} is {value:.3g}, the last {len(before)} steps had {mean:.3g} +- {sigma:.2g}"
    return None


def reason_to_rewind(state: State) -> Rewind | None:
    """What to step over when too many of the last steps were skipped: those, and the ones that may be the cause.

    Asked after a skipped step; all ranks come to one answer.
    """
    last = [step for step in state.skipped[-MANY:] if step.step >= state.step - AMONG]
    if len(last) < MANY:
        return None
    before = [record.step for record in state.history if record.step < last[0].step]
    number = BEFORE * 2 ** len(_recent(state))
    first = before[-number] if len(before) >= number else 0
    return Rewind(
        first, state.step, f"{len(last)} of {AMONG} steps were skipped, step {last[-1].step} because {last[-1].why}"
    )


def give_up(name: str, state: State, rewind: Rewind, documents: Sequence[str]) -> None:
    """Raise StageError if many rewinds have not helped."""
    if len(_recent(state)) >= REWINDS:
        raise StageError(
            f"{name}: {rewind.why}, after {REWINDS} rewinds: training has diverged: lower learning_rate, raise "
            f"warmup_steps, or take out documents of these steps ({named(documents)})"
        )


def named(documents: Sequence[str]) -> str:
    """A few ids and the number of the rest."""
    more = f" and {len(documents) - NAMED} more" if len(documents) > NAMED else ""
    return ", ".join(documents[:NAMED]) + more


def _recent(state: State) -> list[Rewind]:
    return [rewind for rewind in state.rewinds if state.step - rewind.stop < LASTING]
