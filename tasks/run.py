"""One run: its settings, what it has used so far, and why each stage is cached or has to be made."""

import hashlib
import importlib.util
import json
import secrets
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

from data_curation.files import join, listing, write_bytes
from data_curation.place import Artifact, Resources
from data_curation.settings import ConfigError, Settings, StageError
from tasks.artifact import Input, Manifest, commit, inputs_identity, key_of
from tasks.store import Found, Store


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
    """Whether a failed gate of a stage is shown, or ends the run."""
    retries: int = 2
    """Further tries of a stage after a transient error."""
    retry_seconds: float = 5.0
    """Wait before the first further try; doubles each time, with jitter."""
    hours: dict[str, float] = {}
    """Time limit by stage word; the others have none."""
    resources: Resources = Resources()
    """Processes, threads and device of every stage."""
    stages: dict[str, Resources] = {}
    """Resources of single stages by word, in place of `resources`."""
    free_gigabytes: float = 1.0
    """Disk space that must stay free beside what the plan needs."""
    usd_per_hour: float = 0.0
    """Price of this machine per hour, for the cost in the plan and the report."""


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
    """Plan only: tokens and FLOPs."""

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
    previous: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Stage name -> its entry in the newest run of this preset."""

    def __post_init__(self) -> None:
        """Name the run and look up the newest run of the same preset."""
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        self.id = self.id or f"{stamp}-{Path(self.preset).stem}-{secrets.token_hex(2)}"
        self.previous = newest_stages(self.store, self.preset)

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
            "error": error,
            "started": self.started,
            "saved": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": commit(),
            "config": self.config,
            "stages": [record.public() for record in self.stages],
            "warnings": self.warnings,
        }
        self.store.write_run(self.id, "run.json", json.dumps(data, indent=1).encode())


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
    """The stages of the newest run of a preset that got anywhere, by name."""
    for name in store.runs()[:200]:
        try:
            data = store.read_run(name)
        except (ConfigError, ValueError):
            continue
        if data["preset"] == preset and data["stages"]:
            return {entry["name"]: entry for entry in data["stages"] if entry["digest"]}
    return {}


@dataclass(frozen=True)
class Decision:
    """Whether a stage is a hit, and the words for it."""

    key: str
    inputs: dict[str, Any]
    found: Found
    why: str
    """Empty for a hit."""


def decide(
    run: Run, word: str, name: str, version: int, config: Mapping[str, Any], inputs: Mapping[str, Input]
) -> Decision:
    """Look the stage up in the store by its key; if it is no hit, say why against the newest run of this preset."""
    identity = inputs_identity(inputs)
    key = key_of(word, version, config, identity)
    found = run.store.find(word, key)
    if run.asked(run.refresh, word, name):
        return Decision(key, identity, found, "refresh was asked for")
    if found.manifest is None:
        return Decision(key, identity, found, _difference(run, word, name, version, config, identity))
    if found.damage:
        _refuse_costly_remake(run, word, name, found)
        return Decision(key, identity, found, found.damage)
    return Decision(key, identity, found, "")


def plan_unknown(
    run: Run, word: str, name: str, version: int, config: Mapping[str, Any], waits: list[str]
) -> StageRecord:
    """Plan a stage that reads something not made yet: it follows only if that changes, or must run anyway."""
    before = _previous(run, word, name)
    state: State = "run"
    if run.asked(run.refresh, word, name):
        why = "refresh was asked for"
    elif before is None:
        why = "never made"
    elif before.version != version:
        why = f"version {before.version} -> {version}"
    elif not (why := _fields(word, before.config, dict(config))):
        state, why = "if-changed", f"only if the output of {' or '.join(waits)} changes"
    return StageRecord(name, word, state, why, manifest=before)


@cache
def code_hash(function: str) -> str:
    """Hex sha256 of the file that defines `module:name`, found without importing it."""
    spec = importlib.util.find_spec(function.split(":")[0])
    if spec is None or spec.origin is None:
        raise StageError(f"{function}: no such module")
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()


def code_warning(run: Run, word: str, name: str, function: str, found: Found) -> str:
    """One sentence if the stage's file changed since the artifact was made and nobody has accepted that."""
    now, manifest = code_hash(function), found.manifest
    if manifest is None or manifest.code == now:
        return ""
    mark = join(found.home, "accepted", now)
    if run.asked(run.accept, word, name) and run.mode == "make":
        write_bytes(mark, json.dumps({"run": run.id, "commit": commit()}).encode())
        return ""
    if now in listing(join(found.home, "accepted")):
        return ""
    return (
        f"{name}: its code changed since this artifact was made, which is still used: "
        f"--refresh {name} makes it again, --accept {name} records that it is still right"
    )


def _previous(run: Run, word: str, name: str) -> Manifest | None:
    entry = run.previous.get(name)
    if entry is None:
        return None
    try:
        return run.store.manifest(word, entry["key"], entry["attempt"])
    except FileNotFoundError:
        return None


def _difference(
    run: Run, word: str, name: str, version: int, config: Mapping[str, Any], inputs: Mapping[str, Any]
) -> str:
    before = _previous(run, word, name)
    if before is None:
        return "never made"
    reasons: list[str] = []
    if before.version != version:
        reasons.append(f"version {before.version} -> {version}")
    if changed := _fields(word, before.config, dict(config)):
        reasons.append(changed)
    reasons += [f"input {argument} changed" for argument in inputs if before.inputs.get(argument) != inputs[argument]]
    return "; ".join(reasons) or "its artifact is gone"


def _fields(path: str, before: Any, now: Any) -> str:
    """Which leaves of two configurations differ: `field dedup.bands 14 -> 20`."""
    old, new = dict(_leaves(path, before)), dict(_leaves(path, now))
    changed = [leaf for leaf in {**old, **new} if old.get(leaf) != new.get(leaf)]
    words = [f"field {leaf} {old.get(leaf)} -> {new.get(leaf)}" for leaf in changed[:3]]
    return ", ".join(words) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _leaves(f"{path}.{name}", item)
    elif isinstance(value, list) and value and isinstance(value[0], dict | list):
        for index, item in enumerate(value):
            yield from _leaves(f"{path}.{index}", item)
    else:
        yield path, value


def _refuse_costly_remake(run: Run, word: str, name: str, found: Found) -> None:
    manifest = found.manifest
    if manifest is None or manifest.machine.get("device") != "cuda" or run.asked(run.remake, word, name):
        return
    hours = manifest.seconds / 3600
    raise StageError(
        f"{name}: {found.damage}; it took {hours:.1f} h on {manifest.machine.get('host')} and would not come out "
        f"with the same bytes: restore the file, or go on with --remake {name}"
    )


def outputs(record: StageRecord) -> Artifact | Planned:
    """What the next stages are handed in plan mode."""
    if record.manifest is not None and record.state == "cached":
        return record.manifest.artifact(record.name, record.uri)
    return Planned(record.name, record.state == "run")
