"""What an increment goes on from: documents, indexes and tokenizer of earlier runs, pinned by key."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_curation.artifact import Artifact
from data_curation.block_list import block_list
from data_curation.settings import ConfigError, Settings
from data_curation.sources.source import Source
from tasks.block_lists import standing
from tasks.run import RUN, StageRecord
from tasks.stage import Reached
from tasks.store import Store

NEWEST = "newest"
_NEEDED = ("extract", "dedup", "decontaminate", "tokenizer", "shard")


class Pin(Settings):
    """What one earlier run adds, by key."""

    documents: str
    """Key of its `decontaminate`: its documents go into the shards, before the new ones."""
    index: str
    """Key of its `dedup`: new documents that match one of its index are dropped."""


class IncrementConfig(Settings):
    """A new crawl on top of earlier ones: only its new documents are added, and the tokenizer stays."""

    after: str = ""
    """Run to go on from: its name, or `newest` for the newest completed run of this preset; empty: from nothing. It is
    resolved before anything is planned into the two settings below, which the run records. A run with the same sources
    is repeated, not gone on from."""
    earlier: list[Pin] = []
    """Earlier crawls, the oldest first."""
    tokenizer: str = ""
    """Key of the `tokenizer` that stays; empty: one is trained."""


def resolve(config: IncrementConfig, store: Store, preset: str, extract_key: str) -> IncrementConfig:
    """`after` as keys. `extract_key` is that of this run; empty where its sources are not here yet."""
    if not config.after:
        return config
    entry = _run(config.after, store, Path(preset).stem)
    if entry is None:
        return config
    keys = _keys(entry)
    before = IncrementConfig.model_validate(entry["config"].get("increment", {}))
    earlier = list(before.earlier)
    if keys["extract"] != extract_key:
        earlier.append(Pin(documents=keys["decontaminate"], index=keys["dedup"]))
    tokenizer = keys["tokenizer"] if earlier else ""
    return config.model_copy(update={"earlier": earlier, "tokenizer": tokenizer})


def indexes(config: IncrementConfig) -> list[Source]:
    """The older indexes as sources of `dedup`."""
    found: list[Source] = []
    for number, pin in enumerate(config.earlier):
        made = _pinned("dedup", pin.index, f"increment.earlier[{number}].index")
        found.append(Source(name=f"index-{pin.index[:12]}", kind="parquet", path=made.uri("index")))
    return found


def documents(config: IncrementConfig) -> list[Artifact]:
    """The documents of the earlier crawls. ConfigError where one holds what was taken down since."""
    found: list[Artifact] = []
    for number, pin in enumerate(config.earlier):
        setting = f"increment.earlier[{number}].documents"
        found.append(_pinned("decontaminate", pin.documents, setting))
        if taken := _taken_down(found[-1], RUN.get().store):
            raise ConfigError(
                f"{setting} is {pin.documents!r}: {taken} of its documents were taken down since: "
                "run that crawl again in this store, and go on from the new run"
            )
    return found


def tokenizer(config: IncrementConfig) -> Artifact | None:
    """The tokenizer that stays, if one is pinned; a run that was asked to end with the tokenizer ends here."""
    if not config.tokenizer:
        return None
    made, run = _pinned("tokenizer", config.tokenizer, "increment.tokenizer"), RUN.get()
    if run.mode == "make" and run.last == "tokenizer":
        raise Reached("tokenizer")
    return made


def _pinned(word: str, key: str, setting: str) -> Artifact:
    """An artifact of an earlier run. This one records that it uses it, so that `prune` keeps it, but not as its own."""
    run = RUN.get()
    found = run.store.find(word, key)
    if found.manifest is None or not found.whole:
        raise ConfigError(
            f"{setting} is {key!r}: {found.damage or f'no {word} of this key is in {run.store.root}'}: "
            "restore it, or take another run in increment.after"
        )
    name = word if word == "tokenizer" else f"{word}-{key[:8]}"
    record = StageRecord(name, word, "cached", f"pinned by {setting}", key, found.manifest.digest)
    record.attempt, record.uri = found.manifest.attempt, found.home
    run.stages = [*(one for one in run.stages if one.name != name), record]
    return found.manifest.artifact(name, found.home)


def _taken_down(made: Artifact, store: Store) -> int:
    """How many documents of an artifact are on the store's block lists."""
    blocked = standing(store)
    if blocked is None:
        return 0
    from tasks.whereabouts import Names  # here, because most stores have no list and reading tables takes a while

    names = Names(block_list([blocked]).ids)
    return sum(1 for uri in made.uris("documents", ".parquet") for _ in names.rows(uri, ("id",)))


def _run(after: str, store: Store, preset: str) -> dict[str, Any] | None:
    """The run to go on from; None where `newest` finds none."""
    if after != NEWEST:
        entry = store.read_run(after)
        if missing := [word for word in _NEEDED if word not in _keys(entry)]:
            raise ConfigError(f"increment.after is {after!r}: that run finished no {missing[0]}: name another one")
        return entry
    for name in [name for name in store.runs() if f"-{preset}-" in name]:
        entry = store.read_run(name)
        # A run's name holds the preset's, but so may that of another preset whose name is longer.
        whole = entry["state"] == "completed" and Path(entry["preset"]).stem == preset
        if whole and set(_NEEDED) <= set(_keys(entry)):
            return entry
    return None


def _keys(entry: Mapping[str, Any]) -> dict[str, str]:
    """Stage name -> key of what the run finished."""
    return {stage["name"]: stage["key"] for stage in entry["stages"] if stage["digest"]}
