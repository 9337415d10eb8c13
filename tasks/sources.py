"""External sources as inputs: fetched once where they must be, listed with a hash for every file."""

from collections.abc import Sequence
from pathlib import Path

from data_curation.artifact import Artifact
from data_curation.files import is_local
from data_curation.settings import ConfigError
from data_curation.sources.source import Source
from tasks.run import RUN, Planned, Run
from tasks.stage import Output


def listed(name: str, sources: Sequence[Source]) -> Output | Sequence[Output]:
    """The listings of external sources, fetched first where they must be; in a plan only if they are there.

    Where a run has none there is nothing to show, and no task.
    """
    if not sources:
        return []
    run = RUN.get()
    if run.mode == "plan":
        return _planned(run, name, sources) or Planned(name, changes=True)
    from tasks.task import listing_task  # here, because a plan needs no Prefect

    return listing_task(run, name)(name, sources)


def _planned(run: Run, name: str, sources: Sequence[Source]) -> list[Artifact] | None:
    """The listings, if they can be had at once; what a run will need and cannot find is kept for its warnings."""
    try:
        found = list_sources(run, sources)
    except Exception as error:  # of a server, too, that is away or wants credentials
        if not isinstance(error, ConfigError) and all(is_local(source.path or source.paths) for source in sources):
            raise
        words = str(error) if isinstance(error, ConfigError) else f"{name}: {type(error).__name__}: {error}"
        run.missing.append(words)
        return None
    run.listed |= {name: found} if found else {}
    return found


def list_sources(run: Run, sources: Sequence[Source]) -> list[Artifact] | None:
    """The listings; None where something would have to be fetched or asked for first."""
    from data_curation.sources.listing import is_fetched, resolve

    home = Path(run.settings.sources)
    if not all(is_fetched(source, home) for source in sources):
        return None
    return [resolve(source, home, ask=False)[0] for source in sources]


def fetch_sources(run: Run, sources: Sequence[Source]) -> tuple[list[Artifact], list[str]]:
    """The listings, fetched first where they must be, and warnings, which the run keeps."""
    from data_curation.sources.listing import resolve

    found: list[Artifact] = []
    said: list[str] = []
    for source in sources:
        artifact, warnings = resolve(source, Path(run.settings.sources), ask=True)
        found.append(artifact)
        said += warnings
    run.warnings += said
    return found, said
