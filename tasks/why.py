"""Why a stage is cached or has to be made: keys looked up, differences to the newest run in words."""

import hashlib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from data_curation.artifact import Artifact
from data_curation.files import join, write_bytes
from data_curation.settings import StageError
from tasks.artifact import Input, Manifest, commit, inputs_identity, key_of
from tasks.run import Planned, Run, StageRecord, State
from tasks.store import Found


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
        why = "refresh was asked for"
    elif found.damage:
        if run.mode == "make" and (words := costly_remake(run, word, name, found)):
            raise StageError(words)
        why = found.damage
    elif found.manifest is None:
        why = _difference(run, word, name, version, config, identity)
    else:
        why = ""
    if why and (words := _dropped(name, inputs)):
        if run.mode == "make":
            raise StageError(words)
        run.missing.append(words)
    return Decision(key, identity, found, why)


def plan_unknown(
    run: Run, word: str, name: str, version: int, config: Mapping[str, Any], waits: list[str]
) -> StageRecord:
    """Plan a stage that reads something not made yet: it follows only if that changes, or must run anyway."""
    before = previous(run, word, name)
    state: State = "run"
    if run.asked(run.refresh, word, name):
        why = "refresh was asked for"
    elif before is None:
        why = _unmade(run, name)
    elif before.version != version:
        why = f"version {before.version} -> {version}"
    elif not (why := _fields(word, before.config, dict(config))):
        state, why = "if-changed", f"only if the output of {' or '.join(waits)} changes"
    return StageRecord(name, word, state, why, manifest=before)


def previous(run: Run, word: str, name: str) -> Manifest | None:
    """The stage's manifest in the newest run of this preset that finished it."""
    entry = run.previous.get(name)
    if entry is None:
        return None
    try:
        return run.store.manifest(word, entry["key"], entry["attempt"])
    except FileNotFoundError:
        return None


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
    if now in found.accepted:
        return ""
    return (
        f"{name}: its code changed since this artifact was made, which is still used: "
        f"--refresh {name} makes it again, --accept {name} records that it is still right"
    )


def _dropped(name: str, inputs: Mapping[str, Input]) -> str:
    """Why a stage cannot be made of what `prune` has left of its inputs; empty where it can."""
    for value in inputs.values():
        for item in [value] if isinstance(value, Artifact) else value or []:
            if item.dropped:
                return (
                    f"{name} reads part {item.dropped[0]!r} of {item.name}, which `tokenmill prune` has dropped: "
                    f"--refresh {item.name} makes it again"
                )
    return ""


def _difference(
    run: Run, word: str, name: str, version: int, config: Mapping[str, Any], inputs: Mapping[str, Any]
) -> str:
    before = previous(run, word, name)
    if before is None:
        return _unmade(run, name)
    reasons: list[str] = []
    if before.version != version:
        reasons.append(f"version {before.version} -> {version}")
    if changed := _fields(word, before.config, dict(config)):
        reasons.append(changed)
    reasons += [f"input {argument} changed" for argument in inputs if before.inputs.get(argument) != inputs[argument]]
    return "; ".join(reasons) or "its artifact is gone"


def _unmade(run: Run, name: str) -> str:
    return "its artifact is gone" if name in run.previous else "never made"


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


def costly_remake(run: Run, word: str, name: str, found: Found) -> str:
    """Why a damaged stage is not made again unasked; empty where it may be."""
    manifest = found.manifest
    if not found.damage or manifest is None or manifest.machine["device"] == "cpu":
        return ""
    if run.asked(run.remake, word, name):
        return ""
    hours = manifest.seconds / 3600
    return (
        f"{name}: {found.damage}; it took {hours:.1f} h on {manifest.machine['device']} and would not come out "
        f"with the same bytes: restore the file, or go on with --remake {name}"
    )


def outputs(record: StageRecord) -> Artifact | Planned:
    """What the next stages are handed in plan mode."""
    if record.manifest is not None and record.state == "cached":
        return record.manifest.artifact(record.name, record.uri)
    return Planned(record.name, record.state == "run")
