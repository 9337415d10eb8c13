"""Models side by side: their metrics, their answers to one prompt, each stage's cost beside its gain."""

import json
from collections.abc import Sequence
from typing import Any

from data_curation.files import join, read_bytes
from tasks.run import StageRecord
from training.measures import difference

MADE_BY = {"sft": ("instruct",), "dpo": ("pairs", "reward", "prefer"), "grpo": ("reinforce",)}
"""What each model took beyond the one before; phases of pretraining and the base model took their own phase."""
Outcomes = dict[str, dict[str, float]]


def evaluations(stages: Sequence[StageRecord]) -> dict[str, StageRecord]:
    """The finished evaluations, by model, in the order of the road."""
    return {
        record.name.removeprefix("evaluate-"): record
        for record in stages
        if record.stage == "evaluate" and record.manifest is not None
    }


def comparison(metrics: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Rows of a table, kinds of a measure together: (metric, examples, its value for each model or none)."""
    groups: dict[str, dict[str, None]] = {}
    for one in metrics.values():
        for name in one:
            groups.setdefault(name.rpartition("/")[0] or name, {})[name] = None
    rows: list[tuple[str, int | None, list[Any]]] = []
    for name in (name for group in groups.values() for name in group):
        values = [one.get(name) for one in metrics.values()]
        rows.append((name, max((value["n"] or 0 for value in values if value), default=0) or None, values))
    return {"models": list(metrics), "rows": rows}


def answers(stages: Sequence[StageRecord]) -> list[dict[str, Any]]:
    """Prompts that several models answered: {"prompt", "answers": {model: {"text", "verdict"}}}."""
    found: dict[str, dict[str, Any]] = {}
    for model, record in evaluations(stages).items():
        assert record.manifest is not None
        for sample in record.manifest.counts.samples:
            if "prompt" in sample:
                found.setdefault(sample["prompt"], {})[model] = {name: sample[name] for name in ("text", "verdict")}
    return [{"prompt": prompt, "answers": given} for prompt, given in found.items() if len(given) > 1]


def gains(stages: Sequence[StageRecord], usd_per_hour: float) -> list[dict[str, Any]]:
    """For each model, what it took beyond the one before it and how its results differ, with paired standard errors.

    {"model", "against", "stages", "seconds", "usd", "gains": {measure: {"value", "n", "standard_error"}}}
    """
    manifests = {record.name: record.manifest for record in stages if record.manifest is not None}
    phases = [record.name for record in stages if record.stage == "pretrain"]
    models, rows = evaluations(stages), list[dict[str, Any]]()
    before: tuple[str, Outcomes] = ("", {})
    for model, record in models.items():
        took = MADE_BY.get(model, tuple(phases[-1:]) if model == "base" else (model,))
        seconds = sum(manifests[name].seconds for name in took if name in manifests)
        results = _outcomes(record)
        row = {"model": model, "against": before[0], "stages": list(took), "seconds": round(seconds, 1)}
        row |= {"usd": round(seconds / 3600 * usd_per_hour, 4), "gains": _gains(results, before[1])}
        rows.append(row)
        before = (model, results)
    return rows


def _outcomes(record: StageRecord) -> Outcomes:
    """Results of single examples, which the stage keeps beside its output; none of an earlier release's."""
    assert record.manifest is not None
    if not any(file.path == "outcomes.json" for file in record.manifest.records):
        return {}
    return json.loads(read_bytes(join(record.uri, "records", "outcomes.json")))


def _gains(after: Outcomes, before: Outcomes) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for measure, results in after.items():
        both = [(value, before[measure][name]) for name, value in results.items() if name in before.get(measure, {})]
        if both:
            found[measure] = difference([one for one, _ in both], [other for _, other in both])
    return found
