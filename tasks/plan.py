"""What a plan says of each stage beside its state: tokens, FLOPs, seconds, bytes, money; planned against actual."""

from collections.abc import Mapping, Sequence
from typing import Any

from data_curation.files import join
from data_curation.place import Resources
from data_curation.settings import InputError
from data_curation.shard_index import Index, read_index
from tasks import rates
from tasks.artifact import Manifest
from tasks.budget import Budget, budget
from tasks.estimate import Calibration, Estimate, on_gpu
from tasks.run import Run, StageRecord
from training.mixing import MANY_EPOCHS
from training.pretrain import PretrainConfig

PARAMETER_BYTES = 12  # weight and two moments in float32: what a phase publishes
CHECKPOINTS = 2  # beside that, while it trains


def with_budget(run: Run, config: PretrainConfig, vocabulary: int, calibration: Calibration) -> Budget:
    """Attach tokens, FLOPs, seconds and bytes to all planned stages, and the warnings of the budget."""
    index = shard_index(run.stages)
    vocabulary = index.vocabulary if index else vocabulary
    made = budget(config, vocabulary, index.lengths if index else None)
    phases = {phase.name: phase for phase in made.phases}
    achieved: float | None = None
    for record in run.stages:
        phase = phases.get(record.name)
        if phase is not None:
            resources = run.resources(record.stage)
            cost = phase.flops / phase.tokens
            speed, whence = _speed(record, calibration, resources, cost)
            record.figures |= {"tokens": phase.tokens, "flops": phase.flops}
            record.figures["bytes"] = int(PARAMETER_BYTES * made.parameters)
            record.figures["work_bytes"] = CHECKPOINTS * record.figures["bytes"]
            # The probes after a phase read without a backward pass, which takes two of three parts.
            probed = 2 * config.probes.tokens + config.probes.needles * phase.seq_len
            seconds = rates.START + (phase.tokens + min(probed, _heldout(run)) / 3) / speed
            record.figures |= {"seconds": round(seconds, 1), "seconds_from": whence}
            if on_gpu(resources) or _ran_on_gpu(record):
                record.figures["gpu_hours"] = seconds / 3600 * resources.ranks
            if whence in ("probe", "last run"):
                achieved = achieved or speed * cost / resources.ranks
            record.warnings += phase.warnings
    expected = Estimate(run, config.model, vocabulary, calibration, achieved)
    expected.road()
    if index is None and expected.tokens and made.tokens > MANY_EPOCHS * expected.tokens:
        made.phases[-1].warnings.append(
            f"{made.phases[-1].name}: the phases ask for {made.tokens:,} tokens, about {expected.tokens:,.0f} unique "
            f"ones are expected of these sources; beyond {MANY_EPOCHS:g} epochs repeats teach little (Muennighoff et "
            "al. 2023): give more documents or fewer tokens"
        )
        for record in run.stages:  # none with `--until` before the phases
            if record.name == made.phases[-1].name:
                record.warnings = made.phases[-1].warnings
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


def _speed(record: StageRecord, calibration: Calibration, resources: Resources, flops: float) -> tuple[float, str]:
    """Tokens a second of a phase, and where the number is from."""
    if record.name in calibration.speeds:
        return calibration.speeds[record.name], "probe"
    measured = record.manifest.counts.metrics.get("tokens_per_second") if record.manifest else None
    if measured:
        return float(measured["value"]), "last run"
    if on_gpu(resources):
        whence = f"assumed: {rates.GPU_SHARE:.0%} of an H100's {rates.H100_FLOPS:.3g} FLOP/s, times {resources.ranks}"
        return rates.H100_FLOPS * rates.GPU_SHARE * resources.ranks / flops, whence
    whence = f"assumed: {rates.CPU_FLOPS:.3g} FLOP/s of a CPU thread, times {resources.threads}"
    return rates.CPU_FLOPS * resources.threads * resources.ranks / flops, whence


def _heldout(run: Run) -> int:
    """Tokens that the probes of a phase read at most: held-out ones twice, and as many again with needles in them."""
    return 3 * int(run.config.get("shard", {}).get("heldout_tokens", 0))


def _ran_on_gpu(record: StageRecord) -> bool:
    return record.manifest is not None and record.manifest.machine.get("device", "cpu") != "cpu"


def estimate(record: StageRecord) -> dict[str, Any]:
    """Seconds and bytes of a stage: as estimated for this run, else what it last took here."""
    last = {} if record.manifest is None else {"bytes": record.manifest.size(), "seconds": record.manifest.seconds}
    return last | record.figures


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
    """The whole road: sums over the stages that will run; `tokens` are those of pretraining, `bytes` what must be free.

    `unknown` names the stages whose seconds nobody knows.
    """
    ahead = [entry for entry in entries if entry["state"] != "cached"]
    sums = {key: sum(entry.get(key, 0) for entry in ahead) for key in ("flops", "gpu_hours", "usd")}
    sums["tokens"] = sum(entry.get("tokens", 0) for entry in ahead if entry["stage"] == "pretrain")
    hours = sum(entry.get("seconds", 0) for entry in ahead) / 3600
    unknown = [entry["name"] for entry in ahead if "seconds" not in entry]
    return {**sums, "bytes": disk(ahead), "hours": hours, "unknown": unknown}


def disk(figures: Sequence[Mapping[str, Any]]) -> int:
    """Bytes that some stages need: all that they publish, and the most that one of them needs beside that meanwhile."""
    kept = sum(one.get("bytes", 0) for one in figures)
    return kept + max((one.get("work_bytes", 0) for one in figures), default=0)


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
    tokens = manifest.counts.taken.get("tokens", manifest.counts.made.get("tokens"))
    return found if tokens is None else found | {"tokens": tokens}
