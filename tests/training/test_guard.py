"""Guarantees of the guard: spikes and non-numbers are skipped, noise and falling losses are not."""

import math

import pytest

from data_curation.settings import StageError
from training.checkpoint import State, StepRecord
from training.guard import IN_A_ROW, WINDOW, reason_to_skip, skip


def history(steps: int) -> list[StepRecord]:
    """A loss that falls and waves, a norm that waves."""
    return [StepRecord(n, 5 - n / 100 + 0.1 * math.sin(n), 8, 20, 1e-3, 1 + 0.2 * math.cos(n)) for n in range(steps)]


@pytest.mark.parametrize(
    ("loss", "norm", "why"),
    [
        (float("nan"), 1.0, "loss is nan"),
        (4.0, float("inf"), "gradient norm is inf"),
        (9.0, 1.0, "loss is 9, the last 128 steps had"),
        (4.0, 3.0, "gradient norm is 3, the last 128 steps had"),
        (1.0, 0.1, None),
        (4.4, 1.5, None),
    ],
)
def test_a_step_is_skipped_for_what_is_no_number_or_six_sigmas_up(loss: float, norm: float, why: str | None) -> None:
    """Values below the mean are never spikes."""
    found = reason_to_skip(history(200), loss, norm)
    assert found is None if why is None else found is not None and found.startswith(why)


def test_a_spike_needs_a_past_to_stand_out_from() -> None:
    """The first steps, in which everything moves, are only checked for non-numbers."""
    assert reason_to_skip(history(WINDOW // 2 - 1), 50.0, 50.0) is None
    assert reason_to_skip(history(WINDOW // 2), 50.0, 50.0) is not None
    assert reason_to_skip([], float("nan"), 1.0) == "loss is nan"


def test_only_skips_in_a_row_end_the_stage() -> None:
    """As many with steps between are counted; in a row they name stage, step and reason."""
    state = State()
    for step in range(0, 6 * IN_A_ROW, 3):
        state.step = step
        skip("pretrain-8k", state, "loss is nan")
    assert len(state.skipped) == 2 * IN_A_ROW
    with pytest.raises(StageError, match=r"pretrain-8k: 10 steps in a row .* 109, because loss is nan: lower learning"):
        for state.step in range(100, 120):
            skip("pretrain-8k", state, "loss is nan")
