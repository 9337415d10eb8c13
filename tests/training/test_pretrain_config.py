"""Guarantees of pretraining's settings: mistakes are named, phases depend on nothing that comes later."""

from typing import Any

import pytest
from pydantic import ValidationError

from tests.training.phases import config
from training.architecture import ModelConfig, Rope
from training.pretrain import Phase, PretrainConfig

LONG = Phase(seq_len=64, tokens=512, learning_rate=1, yarn_factor=2)


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
        ({"phases": [LONG]}, r"pretrain.phases\[0\].yarn_factor is 2, but no phase before it has plain positions"),
        (
            {"phases": [Phase(seq_len=16, tokens=2560, learning_rate=1), LONG]},
            r"phases\[1\].yarn_factor is 2, but its seq_len \(64\) is 4 times the 16 of the last .* give 4",
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


def test_positions_that_a_phase_does_not_say_are_those_before() -> None:
    """Theta is carried on; YaRN counts from the last length without it, in every later phase."""
    lengths = [(32, {"rope_theta": 2e4}), (64, {}), (128, {"yarn_factor": 2}), (256, {"yarn_factor": 4})]
    phases = [Phase(seq_len=n, tokens=2**12 >> i, learning_rate=1, **more) for i, (n, more) in enumerate(lengths)]
    chosen = config(phases=phases)
    assert [chosen.run_of(index).rope for index in range(4)] == [
        Rope(theta=2e4), Rope(theta=2e4), Rope(theta=2e4, factor=2, original=64), Rope(theta=2e4, factor=4, original=64)
    ]  # fmt: skip
    assert config(phases=[Phase(seq_len=32, tokens=512, learning_rate=1)]).run_of(0).rope == Rope(theta=10_000.0)


def test_batch_and_learning_rate_follow_from_the_size() -> None:
    """By hand from DeepSeek LLM's rule for 1e19 FLOPs; later phases go on where the one before ended."""
    tokens = int(1e19 / ModelConfig(depth=14).flops_per_token(2048, 0))
    phases = [{"seq_len": 2048, "tokens": tokens, "shape": "linear"}, {"seq_len": 4096, "tokens": 10**9}]
    chosen = PretrainConfig.model_validate({"model": {"depth": 14}, "phases": phases})
    # .292 e19^.3271 = 479,000, nearest to 2^19; .3118 e19^-.125 = .001315
    assert chosen.tokens_per_step == 2**19
    assert [phase.learning_rate for phase in chosen.phases] == [0.0013, 0.00013]
    assert PretrainConfig.model_validate({**chosen.model_dump(), "tokens_per_step": 0}) == chosen
    assert PretrainConfig.model_validate(chosen.model_dump()) == chosen
    spanned = PretrainConfig.model_validate({**chosen.model_dump(), "phases": [{"seq_len": 512, "tokens": 10**9}]})
    assert spanned.tokens_per_step == 2**19 and spanned.phases[0].learning_rate != 0.0013


def test_few_tokens_for_the_parameters_make_small_steps() -> None:
    """By hand from Step Law for 12 layers of 768 (84.9M parameters) and 100M tokens: far from 20 tokens a parameter."""
    shape = {"hidden_size": 768, "layers": 12, "heads": 6, "kv_heads": 6, "intermediate_size": 2048}
    few = PretrainConfig.model_validate({"model": shape, "phases": [{"seq_len": 2048, "tokens": 10**8}]})
    # .58 (1e8)^.571 = 21,450, nearest to 2^14; 1.79 (84.9e6)^-.713 (1e8)^.307 = .001136
    assert few.tokens_per_step == 2**14 and few.phases[0].learning_rate == 0.0011
    many = PretrainConfig.model_validate({"model": shape, "phases": [{"seq_len": 2048, "tokens": 2 * 10**9}]})
    assert many.tokens_per_step == 2**18  # 23 a parameter: .292 (1.246e18)^.3271 = 242,000


def test_what_follows_from_the_size_does_not_depend_on_later_phases() -> None:
    """A later phase's tokens leave the first one's identity alone."""
    runs = [
        PretrainConfig(phases=[Phase(seq_len=512, tokens=10**9), Phase(seq_len=1024, tokens=later)]).run_of(0)
        for later in (10**7, 10**8)
    ]
    assert runs[0].identity() == runs[1].identity()
