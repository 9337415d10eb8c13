"""What a store adds to a run's settings before it is planned: block lists of takedowns, pins of an increment."""

from flows.config import PipelineConfig
from tasks.artifact import inputs_identity, key_of
from tasks.block_lists import SOURCE, standing
from tasks.curation import extract
from tasks.pins import indexes, resolve
from tasks.run import RUN, Run
from tasks.sources import list_sources


def settled(config: PipelineConfig) -> PipelineConfig:
    """The settings with all that this store adds to them; the run records them as they are then."""
    run = RUN.get()
    config = _without_taken_down(config, run)
    config = _increment(config, run)
    run.config = config.model_dump(mode="json", exclude={"run"})
    return config


def _without_taken_down(config: PipelineConfig, run: Run) -> PipelineConfig:
    blocked = standing(run.store)
    if blocked is None or any(source.name == SOURCE for source in config.dedup.blocked):
        return config
    extracted = config.extract.model_copy(update={"blocked": [*config.extract.blocked, blocked]})
    unique = config.dedup.model_copy(update={"blocked": [*config.dedup.blocked, blocked]})
    return config.model_copy(update={"extract": extracted, "dedup": unique})


def _increment(config: PipelineConfig, run: Run) -> PipelineConfig:
    if not (config.increment.after or config.increment.earlier):
        return config
    listed = list_sources(run, config.extract.sources)
    key = ""
    if listed is not None:
        inputs = inputs_identity(extract.narrow({"sources": listed}))
        key = key_of(extract.word, extract.version, config.extract.identity(), inputs)
    increment = resolve(config.increment, run.store, run.preset, key)
    older = [*config.dedup.indexes, *indexes(increment)]
    unique = config.dedup.model_copy(update={"indexes": older})
    return config.model_copy(update={"increment": increment, "dedup": unique})
