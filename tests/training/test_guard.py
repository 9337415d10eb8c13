"""Guarantees of the guard: spikes and non-numbers are skipped, noise and falling losses are not."""

import math

import pytest

from data_curation.settings import StageError
from training.guard import AMONG, BEFORE, LASTING, MANY, WINDOW, give_up, named, reason_to_rewind, reason_to_skip
from training.state import Rewind, SkippedStep, State, StepRecord


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


def skipped(taken: int, *steps: int) -> State:
    """A state after `steps`, which were skipped, and so many taken ones before."""
    return State(steps[-1] + 1, history(taken), [SkippedStep(step, "loss is nan") for step in steps])


def test_many_skipped_steps_step_over_them_and_what_may_be_the_cause() -> None:
    """Five of ten, in a row or not; fewer are only counted. Each rewind looks back twice as far."""
    assert reason_to_rewind(skipped(100, *range(100, 100 + MANY - 1))) is None
    assert reason_to_rewind(skipped(100, *range(100, 100 + 3 * MANY, 3))) is None
    found = reason_to_rewind(skipped(100, *range(100, 100 + AMONG, 2)))
    why = "5 of 10 steps were skipped, step 108 because loss is nan"
    assert found is not None and found == Rewind(100 - BEFORE, 109, why)
    again = skipped(100, *range(100, 100 + AMONG, 2))
    again.rewinds = [found]
    assert reason_to_rewind(again) == Rewind(100 - 2 * BEFORE, 109, why)
    assert reason_to_rewind(skipped(3, *range(3, 8))) == Rewind(0, 8, why.replace("108", "7"))


def test_a_training_that_is_given_up_names_documents() -> None:
    """The reason, how often it was tried, what to change, a few of the documents; rewinds of long ago do not count."""
    assert named(["a", "b"]) == "a, b"
    assert named([*"abcdefg"]) == "a, b, c, d, e and 2 more"
    late, rewind = State(5 + LASTING, rewinds=[Rewind(1, 5, "")] * 3), Rewind(2, 9, "loss is nan")
    give_up("pretrain-8k", late, rewind, ["a"])
    with pytest.raises(StageError, match=r"8k: loss is nan, after 3 rewinds: training has diverged: .* \(a\)"):
        give_up("pretrain-8k", State(9, rewinds=late.rewinds), rewind, ["a"])
