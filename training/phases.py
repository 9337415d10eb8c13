"""The phases of pretraining: what each says, what follows from the size where it says nothing, what is refused."""

import math
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError

from data_curation.settings import Settings
from training.architecture import ModelConfig, Rope
from training.mixing import MixConfig
from training.schedule import ScheduleConfig, Shape

ROPE_THETA = 10_000.0
"""Base of the rotary positions where no phase says one (Su et al. 2021)."""

OPTIMAL = 20
"""Tokens a parameter with which given FLOPs give the lowest loss, about (Hoffmann et al. 2022, Chinchilla)."""

BY_SIZE = 0
"""In `tokens_per_step`: the batch that follows from the size, which `by_size` puts in its place."""


def _whole(value: Any) -> Any:
    # YAML reads 2e6 as text and 2.0e+6 as a float; both mean two million here.
    try:
        return int(float(value)) if isinstance(value, (str, float)) and float(value).is_integer() else value
    except ValueError:
        return value


Tokens = Annotated[int, BeforeValidator(_whole)]


class Phase(Settings):
    """One phase of length-progressive training."""

    seq_len: Tokens
    """Tokens per sequence in this phase; lengths grow from phase to phase."""
    tokens: Tokens
    """Tokens to train on in this phase; whole steps are made of them. The first phase needs more than half of all."""
    rope_theta: float | None = None
    """Base of the rotary positions, larger for longer sequences (Xiong et al. 2023); none: as before, first 10,000."""
    yarn_factor: float | None = None
    """Stretch positions by YaRN: seq_len as a multiple of the last unstretched phase's (OLMo 3: 8); none: theta."""
    learning_rate: float | None = None
    """Peak of this phase; none: by the size in the first (DeepSeek LLM's rule, or Step Law where tokens are few for the
    parameters), then where the phase before ended."""
    warmup_steps: int = 0
    """Steps of linear warm-up at the phase's beginning; with `span: run` only the first phase's counts."""
    shape: Shape | None = None
    """Shape of this phase's learning rate; none takes `schedule.shape`. Not with `span: run`."""
    mix: MixConfig = MixConfig()
    """Which documents this phase reads: weights by source, more of the long ones."""


def rope_of(phases: Sequence[Phase], index: int) -> Rope:
    """Rotary positions of a phase: what it does not say it has from those before."""
    thetas = [phase.rope_theta for phase in phases[: index + 1] if phase.rope_theta is not None]
    theta, factor = thetas[-1] if thetas else ROPE_THETA, phases[index].yarn_factor
    return Rope(theta=theta) if factor is None else Rope(theta=theta, factor=factor, original=_plain(phases, index))


def _plain(phases: Sequence[Phase], index: int) -> int | None:
    """Length of the last phase before this one whose positions are not stretched."""
    return next((phase.seq_len for phase in reversed(phases[:index]) if phase.yarn_factor is None), None)


def by_size(data: dict[str, Any]) -> dict[str, Any]:
    """The fields of `pretrain` with batch and learning rates where there are none.

    They follow from the first phase, which later ones do not change (`batch_and_rate`).
    """
    data = {name: value for name, value in data.items() if value is not None}
    if _whole(data.get("tokens_per_step")) == BY_SIZE:
        del data["tokens_per_step"]
    try:
        model = ModelConfig.model_validate(data.get("model", {}))
        schedule = ScheduleConfig.model_validate(data.get("schedule", {}))
        phases = [Phase.model_validate(phase) for phase in data.get("phases", PHASES)]
        if phases[0].tokens <= 0:
            return data
        batch, rate = batch_and_rate(model, phases[0])
        rates = _rates(phases, rate, schedule)
        step = math.lcm(*(phase.seq_len for phase in phases))
    except (ValidationError, TypeError, LookupError, ZeroDivisionError):
        return data  # the fields' own checks say what is wrong
    if step <= 0:
        return data
    filled = [phase.model_copy(update={"learning_rate": rate}) for phase, rate in zip(phases, rates, strict=True)]
    return {"tokens_per_step": step * 2 ** max(0, round(math.log2(batch / step)))} | data | {"phases": filled}


def batch_and_rate(model: ModelConfig, phase: Phase) -> tuple[float, float]:
    """Tokens of a step and the peak of the learning rate for a model that is trained from the start.

    By the FLOPs: batch .292 FLOPs^.3271, peak .3118 FLOPs^-.125 (Bi et al. 2024, DeepSeek LLM, section 3.1), fitted to
    models of the size that is best for their FLOPs. A larger model, with fewer than 20 tokens a parameter N (without
    embeddings), would take too few steps and too large ones: there by N and the tokens D, batch .58 D^.571, peak 1.79
    N^-.713 D^.307 (Li et al. 2025, Step Law). The two do not meet: at 20 tokens a parameter the batch halves.
    """
    flops = phase.tokens * model.flops_per_token(phase.seq_len, 0)
    parameters = model.flops_per_token(0, 0) / 6
    if phase.tokens < OPTIMAL * parameters:
        return 0.58 * phase.tokens**0.571, 1.79 * parameters**-0.713 * phase.tokens**0.307
    return 0.2920 * flops**0.3271, 0.3118 * flops**-0.1250


def _rates(phases: Sequence[Phase], first: float, schedule: ScheduleConfig) -> list[float]:
    rates: list[float] = []
    for phase in phases:
        rates.append(first if phase.learning_rate is None else phase.learning_rate)
        ends_low = schedule.span == "phase" and (phase.shape or schedule.shape) != "constant"
        first = rates[-1] * (schedule.final_share if ends_low else 1.0)
    # Two digits are what the rule is good for.
    return [
        float(f"{rate:.2g}") if phase.learning_rate is None else rate for phase, rate in zip(phases, rates, strict=True)
    ]


PHASES = [
    Phase(seq_len=2048, tokens=8_000_000_000, rope_theta=5e4, warmup_steps=1000),
    Phase(seq_len=8192, tokens=600_000_000, rope_theta=5e5, learning_rate=5e-4, shape="linear"),
    Phase(seq_len=32768, tokens=200_000_000, rope_theta=2e6, shape="linear"),
]
"""91% of the tokens in the first, as in current practice (SmolLM3, OLMo 3)."""


def check_phase(phases: Sequence[Phase], index: int, tokens_per_step: int, schedule: ScheduleConfig) -> None:
    """Raise ValueError for what is wrong with one phase, by its place among the others."""
    path, phase = f"pretrain.phases[{index}]", phases[index]
    for name in ("seq_len", "tokens", "rope_theta", "learning_rate"):
        value = getattr(phase, name)
        if value is not None and value <= 0:
            raise ValueError(f"{path}.{name} is {value}: give a number above 0")
    if tokens_per_step % phase.seq_len:
        raise ValueError(
            f"{path}.seq_len ({phase.seq_len}) must divide pretrain.tokens_per_step ({tokens_per_step}): "
            "every step holds whole sequences"
        )
    steps = phase.tokens // tokens_per_step
    if steps < 1:
        raise ValueError(
            f"{path}.tokens is {phase.tokens}, less than one step of pretrain.tokens_per_step "
            f"({tokens_per_step}): raise it or make the steps smaller"
        )
    if not 0 <= phase.warmup_steps < steps and schedule.span == "phase":
        raise ValueError(f"{path}.warmup_steps is {phase.warmup_steps} of {steps} steps: give fewer")
    if phase.shape is not None and schedule.span == "run":
        raise ValueError(f"{path}.shape is {phase.shape}, but pretrain.schedule.span is run: drop one of them")
    if phase.yarn_factor is not None:
        _check_yarn(path, phase.seq_len, phase.yarn_factor, _plain(phases, index))
    if index and phase.seq_len <= phases[index - 1].seq_len:
        raise ValueError(
            f"{path}.seq_len is {phase.seq_len}, phases[{index - 1}] has "
            f"{phases[index - 1].seq_len}: lengths must grow, order the phases by seq_len"
        )


def _check_yarn(path: str, seq_len: int, factor: float, plain: int | None) -> None:
    if plain is None:
        raise ValueError(f"{path}.yarn_factor is {factor:g}, but no phase before it has plain positions: drop it")
    if factor * plain != seq_len:  # transformers warns at every load of such a model
        raise ValueError(
            f"{path}.yarn_factor is {factor:g}, but its seq_len ({seq_len}) is {seq_len / plain:g} times the "
            f"{plain} of the last phase without one: give {seq_len / plain:g}"
        )
