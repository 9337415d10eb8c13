"""The flow `stage`: one stage made again, with its own settings filled in as a form."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from data_curation.settings import ConfigError
from flows.forms import TRAINING, CurationForm, TrainingForm, sets
from flows.plan import Asked
from flows.run import Preset, StageName, run_road
from tasks.artifact import commit


def _run_name() -> str:
    asked = flow_run.parameters
    preset = Path(str(asked.get("preset", "run"))).stem
    return f"{asked.get('stage', 'stage')}-{preset}-{datetime.now(UTC):%Y-%m-%d-%H%M%S}"


@flow(name="stage", version=commit(), flow_run_name=_run_name, persist_result=False)
def stage(
    stage: StageName,
    preset: Preset = "demo",
    curation: CurationForm = None,
    training: TrainingForm = None,
    set: list[str] = [],  # noqa: B006 - the parameter is named as people type it, and Prefect copies defaults
) -> dict[str, Any]:
    """Make one stage again in a new attempt; what it needs comes from the store, what follows it waits for a run.

    Args:
        stage: The stage to make again.
        preset: What it belongs to: a file of configs/.
        curation: Settings of a curation stage: choose its word. Whatever stays empty is as in the preset.
        training: The same for a training stage.
        set: Settings of other stages over the preset's, one an entry, such as `dedup.bands=20`.
    """
    mine, other = (training, curation) if stage in TRAINING else (curation, training)
    if strays := sets("", other or {}):
        raise ConfigError(f"stage {stage}: settings of another stage are filled in ({', '.join(strays)}): empty them")
    return run_road(preset, [*set, *sets(stage, mine or {})], Asked(refresh=[stage], until=stage))
