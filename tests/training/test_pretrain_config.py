"""Guarantees of pretraining's settings: mistakes are named, phases depend on nothing that comes later."""

from typing import Any

import pytest
from pydantic import ValidationError

from tests.training.phases import config
from training.pretrain import Phase


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"phases": []}, "pretrain.phases is empty"),
        ({"tokens_per_step": 100}, r"pretrain.phases\[0\].seq_len \(32\) must divide pretrain.tokens_per_step \(100\)"),
        (
            {
                "phases": [
                    Phase(seq_len=64, tokens=2560, learning_rate=1),
                    Phase(seq_len=32, tokens=256, learning_rate=1),
                ]
            },
            r"pretrain.phases\[1\].seq_len is 32, phases\[0\] has 64: lengths must grow",
        ),
        (
            {
                "phases": [
                    Phase(seq_len=32, tokens=512, learning_rate=1),
                    Phase(seq_len=64, tokens=512, learning_rate=1),
                ]
            },
            r"pretrain.phases\[0\].tokens is 50% of all tokens; the first phase needs more than half: raise it",
        ),
        ({"phases": [Phase(seq_len=32, tokens=-5, learning_rate=1)]}, r"pretrain.phases\[0\].tokens is -5: give"),
        ({"phases": [Phase(seq_len=32, tokens=255, learning_rate=1)]}, r"tokens is 255, less than one step"),
        ({"phases": [Phase(seq_len=32, tokens=512, learning_rate=0)]}, r"pretrain.phases\[0\].learning_rate is 0"),
        (
            {"phases": [Phase(seq_len=32, tokens=512, learning_rate=1, warmup_steps=2)]},
            r"pretrain.phases\[0\].warmup_steps is 2 of 2 steps",
        ),
    ],
)
def test_wrong_phases_are_refused_with_path_value_and_remedy(given: dict[str, Any], message: str) -> None:
    """Every mistake in the phases names its setting and its value before anything runs."""
    with pytest.raises(ValidationError, match=message):
        config(**given)


def test_numbers_may_be_written_with_an_exponent() -> None:
    """2e6, which YAML reads as text, means two million tokens."""
    assert Phase(seq_len=32, tokens="2e6", learning_rate=1).tokens == 2_000_000


def test_stages_are_named_by_length() -> None:
    """Multiples of 1,024 are written with a k."""
    phases = [Phase(seq_len=n, tokens=2**20 >> i, learning_rate=1) for i, n in enumerate((256, 1024, 8192))]
    assert config(tokens_per_step=8192, phases=phases).names() == ["pretrain-256", "pretrain-1k", "pretrain-8k"]


def test_a_phase_does_not_depend_on_later_ones_unless_the_schedule_spans_the_run() -> None:
    """Changing the second phase leaves the first one's identity alone; with `span: run` it does not."""
    for whole, same in (("phase", True), ("run", False)):
        first = config().phases[0]
        schedules = {"schedule": {"span": whole, "shape": "linear"}}
        runs = [
            config(phases=[first, Phase(seq_len=64, tokens=tokens, learning_rate=1e-3)], **schedules).run_of(0)
            for tokens in (256, 512)
        ]
        assert (runs[0].identity() == runs[1].identity()) is same
