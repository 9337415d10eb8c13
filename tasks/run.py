"""One run: its settings, what was asked of it, and what it has used so far."""

import json
import os
import secrets
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import psutil
from pydantic import Field

from data_curation.artifact import Artifact
from data_curation.place import Resources
from data_curation.settings import ConfigError, Settings
from tasks.artifact import Manifest, commit
from tasks.lease import this_host
from tasks.secrets import clean
from tasks.store import Store


class RunConfig(Settings):
    """Where and how a run works; nothing here changes what is made."""

    store: str = "out/store"
    """Folder or s3:// prefix of all artifacts."""
    home: str = ".tokenmill"
    """Folder of our Prefect server's database and of caches on this machine."""
    sources: str = "out/sources"
    """Folder into which packages are fetched and turned into sources, once."""
    export: str | None = None
    """Folder for report.html, report.json and model/; none is out/<preset>."""
    gates: Literal["warn", "enforce"] = "warn"
    """Whether a failed gate of a stage is shown, or ends the run (not one that measured nothing or only advises)."""
    retries: int = Field(default=2, ge=0)
    """Further tries of a stage after a transient error."""
    retry_seconds: float = Field(default=5.0, ge=0)
    """Wait before the first further try; doubles each time, with jitter."""
    hours: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Time limit by stage word; the others have none."""
    resources: Resources = Resources()
    """Processes, threads and device of every stage."""
    stages: dict[str, Resources] = {}
    """Resources of single stages by word, in place of `resources`."""
    free_gigabytes: float = Field(default=1.0, ge=0)
    """Disk space that must stay free beside what the plan needs."""
    usd_per_hour: float = Field(default=0.0, ge=0)
    """Price of this machine per hour, for the cost in the plan and the report."""


RUNS = 10
"""Newest runs of a preset in which a stage's last making is looked for."""
State = Literal["made", "cached", "failed", "run", "if-changed"]


@dataclass
class StageRecord:
    """What happened, or by plan will happen, to one stage of a run."""

    name: str
    stage: str
    state: State
    why: str
    key: str = ""
    digest: str | None = None
    attempt: int = 0
    seconds: float = 0.0
    uri: str = ""
    manifest: Manifest | None = None
    warnings: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    """Plan only: tokens, FLOPs, seconds, GPU hours and bytes, as far as they are known."""

    def public(self) -> dict[str, Any]:
        """The stable fields of `run --json` and report.json."""
        fields = ("name", "stage", "state", "key", "digest", "seconds", "uri", "attempt", "why", "warnings")
        return {name: getattr(self, name) for name in fields}


@dataclass(frozen=True)
class Planned:
    """In plan mode: the output of a stage that has to be made, so nobody knows its digest yet."""

    name: str
    changes: bool
    """True: it will be made. False: it is made again only if what it reads changes."""


@dataclass
class Run:
    """A run or a plan of the road; the stages find it in `RUN`."""

    preset: str
    config: dict[str, Any]
    settings: RunConfig
    store: Store
    mode: Literal["make", "plan"]
    refresh: frozenset[str] = frozenset()
    remake: frozenset[str] = frozenset()
    accept: frozenset[str] = frozenset()
    last: str | None = None
    """Name of the stage after which the run ends; none goes to the end of the road."""
    id: str = ""
    stages: list[StageRecord] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    planned: list[dict[str, Any]] = field(default_factory=list)
    """{"stage", "key", "attempt"} of what the plan found cached: `prune` must not take it while the run goes on."""
    expected: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Stage name -> what the plan expected of it (tokens, FLOPs, seconds, bytes), for those that were not cached."""
    budget: Any = None
    """In a plan: data against phases (tasks/budget.py)."""
    listed: dict[str, list[Artifact]] = field(default_factory=dict)
    """In a plan: the sources that are here, by the name of their listing."""
    missing: list[str] = field(default_factory=list)
    """In a plan: what it needs and cannot have, such as a source; a run ends at it before it begins."""
    previous: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Stage name -> its entry in the newest run of this preset that has made or used it."""

    def __post_init__(self) -> None:
        """Name the run and look up the newest run of the same preset."""
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        self.id = self.id or f"{stamp}-{Path(self.preset).stem}-{secrets.token_hex(2)}"
        self.previous = newest_stages(self.store, Path(self.preset).stem)

    def asked(self, which: frozenset[str], word: str, name: str) -> bool:
        """Whether a command-line set names this stage by its word or its full name."""
        return word in which or name in which

    def resources(self, word: str) -> Resources:
        """What this stage may use here."""
        return self.settings.stages.get(word, self.settings.resources)

    def save(self, state: str, error: str = "") -> None:
        """Write `runs/<run>/run.json`: everything that this run refers to stays out of `prune`."""
        data = {
            "run": self.id,
            "preset": self.preset,
            "state": state,
            "error": clean(error),
            "started": self.started,
            "process": {"host": this_host(), "pid": os.getpid(), "started": psutil.Process().create_time()},
            "planned": self.planned,
            "saved": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": commit(),
            "config": self.config,
            "stages": [record.public() for record in self.stages],
            "warnings": self.warnings,
        }
        self.store.write_run(self.id, "run.json", clean(json.dumps(data, indent=1)).encode())


RUN: ContextVar[Run] = ContextVar("tokenmill_run")


@contextmanager
def running(run: Run) -> Generator[Run]:
    """Make `run` the one that the stages belong to."""
    token = RUN.set(run)
    try:
        yield run
    finally:
        RUN.reset(token)


def newest_stages(store: Store, preset: str) -> dict[str, dict[str, Any]]:
    """By name, each stage's entry in the newest run of a preset (by its name without a suffix) that finished it.

    Runs may end early or be asked for a part of the road, so a few of them are looked at.
    """

    def read(name: str) -> list[dict[str, Any]]:
        try:
            data = store.read_run(name)
        except (ConfigError, ValueError):
            return []
        # A run's name holds the preset's, but so may that of another preset whose name is longer.
        return data["stages"] if Path(data["preset"]).stem == preset else []

    found: dict[str, dict[str, Any]] = {}
    names = [name for name in store.runs() if f"-{preset}-" in name][:RUNS]
    with ThreadPoolExecutor(RUNS) as pool:
        for entry in (entry for stages in pool.map(read, names) for entry in stages if entry["digest"]):
            found.setdefault(entry["name"], entry)
    return found
