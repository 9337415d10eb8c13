"""External sources as inputs: fetched once where they must be, listed with a hash for every file."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import Task, task
from prefect.client.schemas.objects import State
from prefect.states import Completed

from data_curation.artifact import Artifact
from data_curation.files import is_local
from data_curation.settings import ConfigError
from data_curation.sources.source import Source
from tasks.run import RUN, Planned, Run
from tasks.show import say
from tasks.stage import Output, policy


def listed(name: str, sources: Sequence[Source]) -> Output | Sequence[Output]:
    """The listings of external sources, fetched first where they must be; in a plan only if they are there.

    Where a run has none there is nothing to show, and no task.
    """
    if not sources:
        return []
    run = RUN.get()
    if run.mode == "plan":
        return _planned(run, name, sources) or Planned(name, changes=True)
    listing_task: Task[..., Any] = task(name=name, task_run_name=name, **policy(run))(_sources_task)
    return listing_task(name, sources)


def _planned(run: Run, name: str, sources: Sequence[Source]) -> list[Artifact] | None:
    """The listings, if they can be had at once; what a run will need and cannot find is kept for its warnings."""
    try:
        found = list_sources(run, sources, fetch=False)
    except Exception as error:  # of a server, too, that is away or wants credentials
        if not isinstance(error, ConfigError) and all(is_local(source.path or source.paths) for source in sources):
            raise
        words = str(error) if isinstance(error, ConfigError) else f"{name}: {type(error).__name__}: {error}"
        run.missing.append(words)
        return None
    run.listed |= {name: found} if found else {}
    return found


def _sources_task(name: str, sources: Sequence[Source]) -> State[Any]:
    run = RUN.get()
    found = list_sources(run, sources, fetch=True) or []
    for item in found:
        size = sum(file.size for file in item.part("files").files)
        say(f"{name}: {item.name}: {len(item.part('files').files)} files, {size / 1e6:.1f} MB")
    return Completed(name="Listed", data=found)


def list_sources(run: Run, sources: Sequence[Source], fetch: bool) -> list[Artifact] | None:
    """The listings; without `fetch` None where something would have to be fetched or asked for first."""
    from data_curation.sources.listing import is_fetched, resolve

    home = Path(run.settings.sources)
    if not fetch and not all(is_fetched(source, home) for source in sources):
        return None
    found: list[Artifact] = []
    for source in sources:
        artifact, warnings = resolve(source, home, ask=fetch)
        found.append(artifact)
        if fetch:
            run.warnings += warnings
            for warning in warnings:
                say(warning, logging.WARNING)
    return found
