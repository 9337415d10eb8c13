"""Which artifact was made of which, read from manifests: down to the sources' files, up to the models."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from data_curation.files import read_bytes, sha256_file
from data_curation.settings import ConfigError
from tasks.artifact import Manifest
from tasks.store import Store

Attempt = tuple[str, str, int]
"""Word, key and number."""
SHORTEST = 6  # hex digits that name a key or a digest: fewer are mistaken for other names
_HEX = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True)
class Read:
    """One input of an artifact: an attempt of this store, or an external source."""

    argument: str
    attempt: Attempt | None
    """None: a source, which lies outside the store."""
    name: str
    """Of a source; empty for an attempt."""
    uri: str
    parts: dict[str, str]
    """Part -> digest."""


class Lineage:
    """The artifacts of a store and what they read. Manifests are read when they are asked for, and once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.attempts: list[Attempt] = store.current()
        """Every attempt that has a manifest."""
        self.manifest = cache(self._manifest)
        self.run = cache(self._run)

    def uri(self, attempt: Attempt, *path: str) -> str:
        """URI of an attempt, or of something in it."""
        return self.store.home(*attempt, *path)

    def reads(self, attempt: Attempt) -> list[Read]:
        """What an artifact was made of; nothing where its manifest is gone."""
        manifest = self.manifest(attempt)
        return [] if manifest is None else list(_reads(manifest))

    def only(self, attempt: Attempt, argument: str) -> Attempt | None:
        """The one attempt that was read as this argument."""
        return next((read.attempt for read in self.reads(attempt) if read.argument == argument), None)

    def below(self, attempt: Attempt) -> list[Attempt]:
        """The attempt and all that it was made of, each once, what is read before what reads it last."""
        found: dict[Attempt, None] = {}
        waiting = [attempt]
        while waiting:
            one = waiting.pop(0)
            if one not in found:
                found[one] = None
                waiting += [read.attempt for read in self.reads(one) if read.attempt]
        return list(found)

    def models(self) -> list[Attempt]:
        """Every artifact that holds a model."""
        return [one for one in self.attempts if (found := self.manifest(one)) and "model" in found.parts]

    def phases(self, model: Attempt) -> list[Attempt]:
        """The phases of pretraining that a model has gone through, the first one first."""
        found: list[Attempt] = []
        one: Attempt | None = model
        while one is not None:
            if one[0] == "pretrain":
                found.insert(0, one)
            one = self.only(one, "previous" if one[0] == "pretrain" else "model")
        return found

    def name(self, attempt: Attempt) -> str:
        """What the run that made it called it: `pretrain-256`; its word where nobody knows."""
        manifest = self.manifest(attempt)
        stages = self.run(manifest.run).get("stages", []) if manifest else []
        named = (one["name"] for one in stages if (one["stage"], one["key"], one["attempt"]) == attempt)
        return next(named, attempt[0])

    def runs_with(self, attempts: set[Attempt]) -> list[str]:
        """Names of the runs that used one of these."""
        runs = {name: self.run(name) for name in self.store.runs()}
        used = {
            name: {(s["stage"], s["key"], s["attempt"]) for s in run.get("stages", [])} for name, run in runs.items()
        }
        return [name for name, some in used.items() if some & attempts]

    def graph(self, top: Attempt) -> dict[str, Any]:
        """`artifacts` from the model down and `sources` with their files, as plain data that refers by `id`."""
        sources: dict[str, dict[str, Any]] = {}
        artifacts = [self._described(one, sources) for one in self.below(top)]
        return {"model": label(top), "artifacts": artifacts, "sources": list(sources.values())}

    def _described(self, attempt: Attempt, sources: dict[str, dict[str, Any]]) -> dict[str, Any]:
        manifest, uri = self.manifest(attempt), self.uri(attempt)
        about: dict[str, Any] = {"id": label(attempt), "stage": attempt[0], "key": attempt[1], "attempt": attempt[2]}
        if manifest is None:
            return about | {"name": attempt[0], "state": "gone", "uri": uri, "inputs": []}
        inputs: list[dict[str, Any]] = []
        for read in self.reads(attempt):
            if read.attempt is None:
                sources.setdefault(source_id(read), self._source(attempt, read))
            named = {"source": source_id(read)} if read.attempt is None else {"artifact": label(read.attempt)}
            inputs.append({"argument": read.argument, **named, "parts": read.parts})
        fields = ("digest", "version", "config", "commit", "made", "run", "seconds", "packages", "dropped")
        return (
            about
            | {"name": self.name(attempt), "state": "made", "uri": uri}
            | {name: getattr(manifest, name) for name in fields}
            | {"parts": {name: part.digest for name, part in manifest.parts.items()}, "inputs": inputs}
        )

    def _source(self, attempt: Attempt, read: Read) -> dict[str, Any]:
        files = None
        try:
            listed = json.loads(read_bytes(self.uri(attempt, "records", "sources.json")))
            files = next(one["files"] for one in listed[read.argument] if one["name"] == read.name)
        except (FileNotFoundError, KeyError, StopIteration):
            pass  # made before listings were recorded: the digest stands for them
        return {
            "id": source_id(read),
            "name": read.name,
            "path": read.uri,
            "digest": read.parts["files"],
            "files": files,
        }

    def _manifest(self, attempt: Attempt) -> Manifest | None:
        try:
            return self.store.manifest(*attempt)
        except FileNotFoundError:
            return None

    def _run(self, name: str) -> dict[str, Any]:
        try:
            return self.store.read_run(name)
        except (ConfigError, ValueError):
            return {}


def label(attempt: Attempt) -> str:
    """A short name that no other attempt of a store has in practice: `dedup/1f2e3d4c5b6a/1`."""
    return f"{attempt[0]}/{attempt[1][:12]}/{attempt[2]}"


def source_id(read: Read) -> str:
    """What a source is referred to by: equal names with other files are other sources."""
    return f"source/{read.name}/{read.parts.get('files', '')[:12]}"


def attempt_of(uri: str) -> Attempt | None:
    """The attempt that a URI names by its last three parts, wherever the store was then; None for another place."""
    word, key, number = (["", "", "", *uri.rstrip("/").split("/")])[-3:]
    return (word, key, int(number)) if len(key) == 64 and _HEX.fullmatch(key) and number.isdigit() else None


def find_model(lineage: Lineage, asked: str) -> Attempt | None:
    """What a person means: a model's folder, a run's name, the start of a key or digest, or a place in the store.

    None where nothing is called so, ConfigError where several are.
    """
    if Path(asked).is_dir() and attempt_of(asked) is None:
        return _by_weights(lineage, Path(asked))
    if asked in lineage.store.runs():
        return _of_run(lineage, asked)
    *_, word, key, number = ["", "", *asked.rstrip("/").split("/")] if "/" in asked else ["", asked, ""]
    if "/" in asked and not number.isdigit():
        word, key, number = key, number, ""
    if len(key) < SHORTEST or not _HEX.fullmatch(key):
        return None
    found = [
        one
        for one in lineage.attempts
        if one[1].startswith(key) and word in ("", one[0]) and number in ("", str(one[2]))
    ] or _by_digest(lineage, key)
    if len({one[:2] for one in found}) > 1:
        raise ConfigError(f"{asked}: {', '.join(sorted(map(label, found)))} begin so: give more digits")
    return max(found, key=lambda one: one[2], default=None)


def _reads(manifest: Manifest) -> Iterator[Read]:
    for argument, uris in manifest.sources.items():
        given: Any = manifest.inputs.get(argument)
        several: list[Any] = given if isinstance(given, list) else [{"name": "", "parts": given}] if given else []
        for uri, one in zip(uris, several, strict=True):
            home, _, part = uri.rstrip("/").rpartition("/")
            if attempt := attempt_of(uri):
                yield Read(argument, attempt, "", uri, one["parts"])
            elif attempt := attempt_of(home):  # a part that was given as a source: the index of an older crawl
                yield Read(argument, attempt, "", uri, {part: one["parts"]["files"]})
            else:
                yield Read(argument, None, one["name"], uri, one["parts"])


def _of_run(lineage: Lineage, run: str) -> Attempt:
    """The last artifact of a run: its model where it came so far."""
    stages = [(one["stage"], one["key"], one["attempt"]) for one in lineage.run(run)["stages"] if one["digest"]]
    if not stages:
        raise ConfigError(f"run {run!r} finished no stage: `tokenmill runs` lists others")
    models = [one for one in stages if one[0] != "evaluate" and (m := lineage.manifest(one)) and "model" in m.parts]
    return (models or stages)[-1]


def _by_digest(lineage: Lineage, start: str) -> list[Attempt]:
    stages = [stage for name in lineage.store.runs() for stage in lineage.run(name).get("stages", [])]
    found = {(one["stage"], one["key"], one["attempt"]) for one in stages if (one["digest"] or "").startswith(start)}
    return sorted(found)


def _by_weights(lineage: Lineage, folder: Path) -> Attempt | None:
    """The artifact whose model has the very weights that lie in a folder (or in `model/` below it)."""
    home = folder / "model" if (folder / "model").is_dir() else folder
    here = {path.relative_to(home).as_posix(): path for path in sorted(home.rglob("*")) if path.is_file()}
    hashed = cache(lambda name: sha256_file(str(here[name])))
    found: list[tuple[bool, bool, str, Attempt]] = []
    for attempt in lineage.models():
        manifest = lineage.manifest(attempt)
        assert manifest is not None
        files = {file.path: file for file in manifest.parts["model"].files}
        weights = [name for name in files if name.endswith(".safetensors")]
        if not weights or any(name not in here or here[name].stat().st_size != files[name].size for name in weights):
            continue
        if all(hashed(name) == files[name].sha256 for name in weights):
            same = set(files) == set(here) and all(hashed(name) == file.sha256 for name, file in files.items())
            found.append((same, attempt[0] == "publish", manifest.made, attempt))
    return max(found)[-1] if found else None
