"""What a plan says of each stage beside its state: bytes, seconds, money, tokens and FLOPs."""

from collections.abc import Callable
from typing import Any, Protocol

from tasks.run import Run, StageRecord

# Bytes written per stage where it was never made here: a demo's worth, so that a tiny disk is refused early.
FIRST_TIME_BYTES = 50_000_000


class Training(Protocol):
    """What the plan asks of the pretrain section."""

    names: Callable[[], list[str]]
    tokens: Callable[[int], int]
    flops: Callable[[int], float]


def with_estimates(run: Run, training: Training) -> None:
    """Attach to every planned pretrain phase its tokens and FLOPs."""
    names = training.names()
    for record in run.stages:
        if record.name in names:
            index = names.index(record.name)
            record.figures |= {"tokens": training.tokens(index), "flops": training.flops(index)}


def estimate(record: StageRecord) -> dict[str, Any]:
    """Seconds and bytes of a stage: what it last took here, else a guess for bytes and nothing for seconds."""
    if record.manifest is None:
        return record.figures | {"bytes": FIRST_TIME_BYTES}
    return record.figures | {"bytes": record.manifest.size(), "seconds": record.manifest.seconds}


def public(record: StageRecord, usd_per_hour: float) -> dict[str, Any]:
    """The stable fields of `plan --json`."""
    entry = {"name": record.name, "stage": record.stage, "state": record.state, "why": record.why}
    if record.state != "cached":
        figures = estimate(record)
        if "seconds" in figures:
            figures["usd"] = round(figures["seconds"] / 3600 * usd_per_hour, 4)
        entry |= figures
    return entry | {"warnings": record.warnings}
