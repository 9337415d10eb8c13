"""What a plan says of each stage beside its state: bytes, seconds, money, tokens and FLOPs."""

from collections.abc import Mapping
from typing import Any

from tasks.run import Run, StageRecord

# Bytes written per stage where it was never made here: a demo's worth, so that a tiny disk is refused early.
FIRST_TIME_BYTES = 50_000_000


def with_training(run: Run, figures: Mapping[str, dict[str, float]]) -> None:
    """Attach tokens and FLOPs to the planned pretrain phases: {name: {"tokens", "flops"}}."""
    for record in run.stages:
        record.figures |= figures.get(record.name, {})


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
