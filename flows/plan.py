"""The plan of a run: what is asked of it, and every stage of the road looked up, none made; Prefect is not needed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from data_curation.settings import ConfigError
from flows.config import PipelineConfig
from flows.pipeline import road
from tasks.ahead import Ahead
from tasks.estimate import Calibration
from tasks.plan import with_budget
from tasks.run import Run, running
from tasks.store import Store


@dataclass(frozen=True)
class Asked:
    """What the person wants of this run beyond the configuration: stages by word or name."""

    refresh: Sequence[str] = ()
    remake: Sequence[str] = ()
    accept: Sequence[str] = ()
    until: str | None = None


def plan(preset: str, config: PipelineConfig, asked: Asked, calibration: Calibration | None = None) -> Run:
    """Look every stage up without running anything: the same road, in plan mode; `calibration` as of a probe."""
    run = new_run("plan", preset, config, asked)
    run.store = Ahead(run.store.root, run.previous.values())
    with running(run):
        road(config)
    if asked.until:
        _check_names("until", [asked.until], run)
        last = max(i for i, record in enumerate(run.stages) if asked.until in (record.name, record.stage))
        del run.stages[last + 1 :]
    for option in ("refresh", "remake", "accept"):
        _check_names(option, getattr(asked, option), run)
    run.budget = with_budget(run, config.pretrain, config.tokenizer.vocab_size, calibration or Calibration())
    return run


def new_run(mode: Literal["make", "plan"], preset: str, config: PipelineConfig, asked: Asked) -> Run:
    """A run of the road, or a plan of one, of which nothing is done yet."""
    return Run(
        preset,
        config.model_dump(mode="json", exclude={"run"}),
        config.run,
        Store(config.run.store),
        mode,
        refresh=frozenset(asked.refresh),
        remake=frozenset(asked.remake),
        accept=frozenset(asked.accept),
    )


def _check_names(option: str, names: Sequence[str], planned: Run) -> None:
    known = list(dict.fromkeys(name for record in planned.stages for name in (record.name, record.stage)))
    for name in names:
        if name not in known:
            raise ConfigError(f"--{option} {name}: no such stage in this run: it has {', '.join(known)}")
