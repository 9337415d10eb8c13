"""What the finished stages of a run say of themselves, for the model card."""

import re
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from tasks.artifact import Manifest
from tasks.run import RUN, StageRecord
from tasks.why import previous
from training.provenance import StageFacts

_HUB = re.compile("hub://(.+@[0-9a-f]{40})")
"""The place of a listed dataset of the hub; that of a folder ends with a longer hash."""


def stage_facts() -> dict[str, StageFacts]:
    """Of every stage that the run has made or found, by name.

    In a plan that has stages to make nobody knows what they will say: then what the newest card was made of, so that
    `publish` is planned by its own settings and by the stages that it waits for.
    """
    run = RUN.get()
    if any(record.digest is None for record in run.stages):
        before = previous(run, "publish", "publish")
        known: dict[str, Any] = before.config.get("stages", {}) if before else {}
        with suppress(ValidationError):  # a card of another version, which is made again anyway
            return {name: StageFacts.model_validate(one) for name, one in known.items()}
        return {}
    return {record.name: _facts(record, _manifest(record)) for record in run.stages}


def _manifest(record: StageRecord) -> Manifest:
    """Of a stage of this run, or of an earlier one to which an increment is pinned."""
    return record.manifest or RUN.get().store.manifest(record.stage, record.key, record.attempt)


def _facts(record: StageRecord, manifest: Manifest) -> StageFacts:
    counts = manifest.counts
    return StageFacts(
        word=record.stage,
        key=record.key[:12],
        settings=manifest.config,
        taken=counts.taken,
        made=counts.made,
        gates=[{name: _rounded(value) for name, value in row.items()} for row in counts.gates],
        repositories=_repositories(manifest),
    )


def _rounded(value: Any) -> Any:
    # The last digits of a mean depend on the number of threads, and what stands here is part of a key.
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _repositories(manifest: Manifest) -> dict[str, str]:
    """Source name -> OWNER/NAME@COMMIT. Both are in the hashes of its files: this adds nothing to the key."""
    given, places = manifest.inputs.get("sources"), manifest.sources.get("sources", [])
    found = [(one["name"], _HUB.fullmatch(place)) for one, place in zip(given or [], places, strict=True)]
    return {name: match.group(1) for name, match in found if match}
