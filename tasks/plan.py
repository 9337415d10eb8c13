"""What a plan says of each stage beside its state: tokens, FLOPs, seconds, bytes, money; planned against actual."""

from collections.abc import Mapping, Sequence
from typing import Any

from data_curation.files import join
from data_curation.place import Resources
from data_curation.settings import InputError
from data_curation.shard_index import Index, read_index
from tasks.artifact import Manifest
from tasks.budget import Budget, budget
from tasks.run import Run, StageRecord
from training.pretrain import PretrainConfig

# Bytes written per stage where it was never made here: a demo's worth, so that a tiny disk is refused early.
FIRST_TIME_BYTES = 50_000_000
PARAMETER_BYTES = 12  # weight and two moments in float32
COPIES = 3  # two checkpoints while the third is written, or the published model and state
H100_FLOPS, UTILISATION = 989.4e12, 0.4  # bfloat16 without sparsity; what packed documents reach at 438M parameters


def with_budget(run: Run, config: PretrainConfig, vocabulary: int, speeds: Mapping[str, float]) -> Budget:
    """Attach tokens, FLOPs, seconds and bytes to the planned phases, and the warnings of the budget.

    `speeds` are tokens a second by phase, as a probe has measured them; without it those of the last run count.
    """
    index = shard_index(run.stages)
    made = budget(config, index.vocabulary if index else vocabulary, index.lengths if index else None)
    phases = {phase.name: phase for phase in made.phases}
    for record in run.stages:
        phase = phases.get(record.name)
        if phase is not None:
            resources = run.resources(record.stage)
            speed, whence = _speed(record, speeds, resources, phase.flops / phase.tokens)
            record.figures |= {"tokens": phase.tokens, "flops": phase.flops}
            record.figures["bytes"] = int(COPIES * PARAMETER_BYTES * made.parameters)
            if speed:
                seconds = phase.tokens / speed
                record.figures |= {"seconds": seconds, "seconds_from": whence}
                if resources.device == "cuda" or _ran_on_gpu(record):
                    record.figures["gpu_hours"] = seconds / 3600 * resources.ranks
            record.warnings += phase.warnings
    return made


def shard_index(records: Sequence[StageRecord]) -> Index | None:
    """The index of the shards that these stages made or found; none where there are none yet."""
    record = next((record for record in records if record.stage == "shard"), None)
    if record is None or record.manifest is None or not record.uri:
        return None
    try:
        return read_index(join(record.uri, "shards"))[0]
    except InputError:
        return None  # damaged or dropped: the plan says so elsewhere


def _speed(record: StageRecord, speeds: Mapping[str, float], resources: Resources, flops: float) -> tuple[float, str]:
    """Tokens a second of a phase, and where the number is from."""
    if record.name in speeds:
        return speeds[record.name], "probe"
    measured = record.manifest.counts.metrics.get("tokens_per_second") if record.manifest else None
    if measured:
        return float(measured["value"]), "last run"
    if resources.device == "cuda":
        whence = f"assumed: {UTILISATION:.0%} of an H100's {H100_FLOPS:.3g} FLOP/s, times {resources.ranks}"
        return H100_FLOPS * UTILISATION * resources.ranks / flops, whence
    return 0.0, ""


def _ran_on_gpu(record: StageRecord) -> bool:
    return record.manifest is not None and record.manifest.machine.get("device", "cpu") != "cpu"


def estimate(record: StageRecord) -> dict[str, Any]:
    """Seconds and bytes of a stage: what it last took here, else a guess for bytes and nothing for seconds."""
    if record.manifest is None:
        return {"bytes": FIRST_TIME_BYTES} | record.figures
    return {"bytes": record.manifest.size(), "seconds": record.manifest.seconds} | record.figures


def public(record: StageRecord, usd_per_hour: float) -> dict[str, Any]:
    """The stable fields of `plan --json`."""
    entry = {"name": record.name, "stage": record.stage, "state": record.state, "why": record.why}
    if record.state != "cached":
        figures = estimate(record)
        if "seconds" in figures:
            figures["usd"] = round(figures["seconds"] / 3600 * usd_per_hour, 4)
        entry |= figures
    return entry | {"warnings": record.warnings}


def total(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The whole road: sums over the stages that will run; `unknown` names those whose seconds nobody knows."""
    ahead = [entry for entry in entries if entry["state"] != "cached"]
    sums = {key: sum(entry.get(key, 0) for entry in ahead) for key in ("tokens", "flops", "gpu_hours", "bytes", "usd")}
    hours = sum(entry.get("seconds", 0) for entry in ahead) / 3600
    return {**sums, "hours": hours, "unknown": [entry["name"] for entry in ahead if "seconds" not in entry]}


def against(
    expected: Mapping[str, Mapping[str, Any]], records: Sequence[StageRecord], usd_per_hour: float
) -> list[dict[str, Any]]:
    """Planned against actual, for the stages that this run made."""
    return [
        {"stage": record.name, "planned": dict(expected[record.name]), "actual": _actual(record.manifest, usd_per_hour)}
        for record in records
        if record.state == "made" and record.manifest is not None and record.name in expected
    ]


def _actual(manifest: Manifest, usd_per_hour: float) -> dict[str, Any]:
    found: dict[str, Any] = {"seconds": manifest.seconds, "bytes": manifest.size()}
    found["usd"] = round(manifest.seconds / 3600 * usd_per_hour, 4)
    if "tokens" in manifest.counts.taken:
        found["tokens"] = manifest.counts.taken["tokens"]
    return found
