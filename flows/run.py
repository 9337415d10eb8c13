"""One run of the road as the Prefect flow `pipeline`: read the config, plan, check, run, report."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from prefect.runtime import flow_run
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from data_curation.settings import ConfigError, TokenmillError, sha256_of
from flows.config import WORDS, PipelineConfig, load
from flows.pipeline import road
from flows.plan import Asked, new_run, plan
from flows.presets import presets
from tasks.artifact import commit
from tasks.disk import check_disk
from tasks.plan import disk, estimate, public
from tasks.report import export_folder, publish_report
from tasks.run import Run, running
from tasks.secrets import clean, cleaned
from tasks.show import say, show_run
from tasks.stage import Reached

Preset = Annotated[str, Field(json_schema_extra={"enum": [*presets()]})]
StageName = Annotated[str, Field(json_schema_extra={"enum": [*WORDS]})]
StageNames = list[StageName]
Until = Annotated[StageName | SkipJsonSchema[None], Field(json_schema_extra={"enum": [*WORDS]})]


ENDED: list[dict[str, Any]] = []
"""What this process's runs said at their ends, which is what `run --json` prints: a run that a signal ends raises what
carries nothing."""


class RunError(TokenmillError):
    """A run ended early; its cause says how."""


def _run_name() -> str:
    preset = Path(str(flow_run.parameters.get("preset", "run"))).stem
    return f"{preset}-{datetime.now(UTC):%Y-%m-%d-%H%M%S}"


@flow(name="pipeline", version=commit(), flow_run_name=_run_name, persist_result=False)
def pipeline(
    preset: Preset = "demo",
    set: list[str] = [],  # noqa: B006 - the parameter is named as people type it, and Prefect copies defaults
    refresh: StageNames = [],  # noqa: B006
    until: Until = None,
    remake: StageNames = [],  # noqa: B006
    accept: StageNames = [],  # noqa: B006
) -> dict[str, Any]:
    """Raw web pages to an aligned chat model; every stage is cached, retried and can be made again alone.

    Args:
        preset: What to run: a file of configs/.
        set: Settings over the preset's, one an entry, such as `dedup.bands=20`; secrets belong in the environment.
        refresh: Stages to make again in a new attempt; what follows them only if their bytes change.
        until: The last stage to run; empty runs the whole road.
        remake: Damaged, costly stages that may be made again.
        accept: Stages whose old output is still right after a change of their code.
    """
    return run_road(preset, set, Asked(refresh, remake, accept, until))


def run_road(preset: str, sets: Sequence[str], asked: Asked) -> dict[str, Any]:
    """Plan, check, run and report; returns what `run --json` prints."""
    try:
        return _run(preset, sets, asked)
    except Exception as error:
        if (harmless := cleaned(error)) is not None:
            raise harmless from None  # Prefect keeps the message of every error
        raise


def _run(preset: str, sets: Sequence[str], asked: Asked) -> dict[str, Any]:
    config = load(preset, sets)
    planned = plan(preset, config, asked)
    if planned.missing:
        raise ConfigError(planned.missing[0])
    _check_store(config, planned)
    run = new_run("make", preset, config, asked)
    run.last = planned.stages[-1].name
    run.planned = [
        {"stage": record.stage, "key": record.key, "attempt": record.attempt}
        for record in planned.stages
        if record.state == "cached"
    ]
    ahead = [record for record in planned.stages if record.state != "cached"]
    run.expected = {record.name: public(record, config.run.usd_per_hour) for record in ahead}
    say(f"run {run.id} in store {run.store.root}: {_what(planned)}")
    try:
        run.save("running")
        with running(run):
            road(config)
    except Reached:
        pass
    except BaseException as error:
        words = (str(error) or type(error).__name__) if isinstance(error, Exception) else "stopped by a signal"
        _end(run, "failed", words)
        if isinstance(error, Exception):
            raise RunError(clean(words)) from cleaned(error) or error
        raise
    return _end(run, "completed", "")


def _what(planned: Run) -> str:
    states = [record.state for record in planned.stages]
    return (
        f"{len(states)} stages, {states.count('cached')} cached; code {commit()[:12] or 'unknown'}, "
        f"preset {planned.preset}, configuration {sha256_of(planned.config)[:12]}"
    )


def _check_store(config: PipelineConfig, planned: Run) -> None:
    """What would only fail hours later: a store that cannot be written, a disk too small for the plan."""
    planned.store.check_writable()
    for name, folder in (("sources", config.run.sources), ("export", export_folder(planned))):
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"run.{name}: cannot write to {folder} ({error.strerror}): choose another") from error
    check_disk(planned, "the plan", disk([estimate(record) for record in planned.stages if record.state != "cached"]))


def _end(run: Run, state: str, error: str) -> dict[str, Any]:
    """Write the report at every end, failure included, and the summary page."""
    report = None
    try:
        run.save(state, error)
        report = publish_report(run, state, error)
        show_run(run, report)
        say(f"{state}: report {report}")
    except Exception as trouble:
        if not error:
            raise
        say(f"the report could not be written: {trouble}", logging.ERROR)  # and the run's own error goes on
    made = next((record for record in run.stages if record.stage == "publish" and record.digest), None)
    summary: dict[str, Any] = {
        "run": run.id,
        "stages": [record.public() for record in run.stages],
        "report": report,
        "model": str(Path(report).parent / "model") if made and report else None,
        **({"error": error} if error else {}),
    }
    ENDED.append(summary)
    return summary
