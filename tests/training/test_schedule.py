"""Guarantees of the learning-rate schedule."""

import pytest

from training.pretrain import Phase, PretrainConfig
from training.schedule import ScheduleConfig, Span


def span(shape: str, **given: object) -> Span:
    """A span of 100 steps, 10 of them warm-up."""
    return Span(**{"shape": shape, "steps": 100, "first": 0, "warmup_steps": 10, "decay_share": 0.2, "final_share": 0.1}
                | given)  # fmt: skip


@pytest.mark.parametrize("shape", ["constant", "wsd", "cosine", "linear"])
def test_every_shape_warms_up_linearly_to_its_peak(shape: str) -> None:
    """The warm-up rises in equal steps and step 10 stands at the peak."""
    factors = [span(shape).factor(step) for step in range(11)]
    assert factors == pytest.approx([*(step / 10 for step in range(1, 11)), 1.0])


def test_shapes_have_their_published_form() -> None:
    """Half-way and at the end every shape has the value worked out by hand."""
    half, end = 55, 100
    assert [span("constant").factor(step) for step in (half, end)] == [1.0, 1.0]
    assert [span("linear").factor(step) for step in (half, end)] == pytest.approx([0.55, 0.1])
    assert [span("cosine").factor(step) for step in (half, end)] == pytest.approx([0.55, 0.1])
    assert [span("wsd").factor(step) for step in (82, 91, end)] == pytest.approx([1.0, 0.55, 0.1])


def test_one_schedule_over_the_run_is_continuous_over_its_phases() -> None:
    """With `span: run` the phases' rates, laid end to end, are one linear decay."""
    phases = [Phase(seq_len=8, tokens=tokens, learning_rate=1.0) for tokens in (96,)]
    phases += [Phase(seq_len=16, tokens=64, learning_rate=1.0)]
    config = PretrainConfig(
        tokens_per_step=16, phases=phases, schedule=ScheduleConfig(shape="linear", span="run", final_share=0.0)
    )
    rates = [run.learning_rate(step) for run in map(config.run_of, (0, 1)) for step in range(run.steps)]
    assert rates == pytest.approx([1 - step / 10 for step in range(10)])
