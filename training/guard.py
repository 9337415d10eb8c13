"""Which steps are skipped: losses that are no numbers, spikes."""

import math
from collections.abc import Sequence

import numpy as np

from data_curation.settings import StageError
from training.checkpoint import SkippedStep, State, StepRecord

WINDOW = 128
SIGMAS = 6.0
"""A loss or gradient norm so far above the mean of the last WINDOW steps is a spike (OLMo-core's values)."""
IN_A_ROW = 10
"""So many skipped steps one after the other are no accident: training has diverged."""


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


def skip(name: str, state: State, why: str) -> None:
    """Count a skipped step. Raises StageError when there are too many one after the other."""
    state.skipped.append(SkippedStep(state.step, why))
    last = state.skipped[-IN_A_ROW:]
    if len(last) == IN_A_ROW and last[0].step == state.step - IN_A_ROW + 1:
        raise StageError(
            f"{name}: {IN_A_ROW} steps in a row were skipped, the last one, {state.step}, because {why}: lower "
            "learning_rate or raise warmup_steps; the last checkpoint is before these steps"
        )
