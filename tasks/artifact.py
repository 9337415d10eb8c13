"""Identity and memory of a stage: its key, and the manifest that makes an attempt an artifact."""

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from data_curation.artifact import Artifact, Part
from data_curation.counts import Counts
from data_curation.files import File, join
from data_curation.settings import InputError, sha256_of

FORMAT = 1
ROOT = Path(__file__).parent.parent

Input = Artifact | Sequence[Artifact] | None


def inputs_identity(inputs: Mapping[str, Input]) -> dict[str, Any]:
    """What of the inputs enters the key: the digests of the parts used; names only where several come in a list."""
    return {argument: _identity(value) for argument, value in sorted(inputs.items())}


def key_of(word: str, version: int, config: Mapping[str, Any], inputs: Mapping[str, Any]) -> str:
    """Hex sha256 that names the output of a stage: equal keys mean that the same work would be done."""
    return sha256_of({"word": word, "version": version, "config": config, "inputs": inputs})


@dataclass(frozen=True)
class Manifest:
    """The last file of an attempt: what was made, of what, and how. Its presence makes the attempt complete."""

    word: str
    key: str
    attempt: int
    version: int
    config: dict[str, Any]
    inputs: dict[str, Any]
    """As in the key: digests by part."""
    sources: dict[str, list[str]]
    """Argument -> URIs of the artifacts that were read (for lineage; not identity)."""
    parts: dict[str, Part]
    records: list[File]
    """Metrics, plots and logs for people: hashed, outside every digest."""
    counts: Counts
    seconds: float
    peak_memory: int
    """Bytes, the sum over the stage's processes."""
    code: str
    """Hex sha256 of the stage's source file when it ran."""
    commit: str
    packages: dict[str, str]
    machine: dict[str, Any]
    made: str
    """UTC time, ISO 8601."""
    run: str
    dropped: list[str] = field(default_factory=list)
    """Parts whose files were pruned on purpose: not damage."""
    format: int = FORMAT

    @property
    def digest(self) -> str:
        """Hex sha256 over the digests of all parts: equal digests mean equal bytes everywhere."""
        return sha256_of({name: part.digest for name, part in self.parts.items()})

    def artifact(self, name: str, home: str) -> Artifact:
        """The artifact as the stages after it see it."""
        return Artifact(name, home, self.parts, self.key, self.attempt, tuple(self.dropped))

    def expected(self) -> dict[str, int]:
        """Every file that must be there, relative to the attempt's folder -> bytes."""
        kept = {name: part for name, part in self.parts.items() if name not in self.dropped}
        files = {f"{name}/{file.path}": file.size for name, part in kept.items() for file in part.files}
        return files | {f"records/{file.path}": file.size for file in self.records}

    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.expected().values())

    def to_json(self) -> bytes:
        """The bytes of `manifest.json`."""
        data = asdict(self)
        data["parts"] = {
            name: {"digest": part.digest, "files": [asdict(file) for file in part.files]}
            for name, part in self.parts.items()
        }
        return json.dumps({"digest": self.digest, **data}, indent=1).encode()

    @staticmethod
    def readable(data: bytes) -> bool:
        """Whether the bytes are a manifest of any format; what a full disk or a bad copy left is none."""
        try:
            return "format" in cast(dict[str, Any], json.loads(data))
        except (ValueError, TypeError):
            return False

    @staticmethod
    def from_json(data: bytes, uri: str) -> "Manifest":
        """Read `manifest.json`; another format, or bytes that are none, are refused with words."""
        try:
            fields = json.loads(data)
        except ValueError as error:
            raise InputError(f"{uri}: not a manifest ({error}); remove this attempt's folder") from error
        if fields.get("format") != FORMAT:
            raise InputError(f"{uri}: format {fields.get('format')}, this version reads format {FORMAT}")
        fields.pop("digest")
        fields["parts"] = {
            name: Part(tuple(File(**file) for file in part["files"])) for name, part in fields["parts"].items()
        }
        fields["records"] = [File(**file) for file in fields["records"]]
        fields["counts"] = Counts(**fields["counts"])
        return Manifest(**fields)


@cache
def machine() -> dict[str, Any]:
    """What this machine is, in words that a figure needs beside it."""
    return {"host": platform.node(), "system": platform.platform(), "python": platform.python_version()}


@cache
def commit() -> str:
    """The revision of the checkout, with `+` when it has uncommitted changes; empty outside git."""
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + ("+" if changed.stdout.strip() else "")


@cache
def packages() -> dict[str, str]:
    """Versions of the libraries whose behaviour can show in an output."""
    names = ["datatrove", "tokenizers", "torch", "transformers", "trl", "pyarrow", "numpy", "prefect"]
    return {name: metadata.version(name) for name in names if _installed(name)}


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _identity(value: Input) -> Any:
    if value is None:
        return None
    if isinstance(value, Artifact):
        return {name: part.digest for name, part in sorted(value.parts.items())}
    return [{"name": item.name, "parts": _identity(item)} for item in value]


def uris_of(inputs: Mapping[str, Input]) -> dict[str, list[str]]:
    """Where every input was read, for lineage."""
    found: dict[str, list[str]] = {}
    for argument, value in inputs.items():
        items = [value] if isinstance(value, Artifact) else list(value or [])
        found[argument] = [join(item.home) for item in items]
    return found


def listings_of(inputs: Mapping[str, Input]) -> dict[str, list[dict[str, Any]]]:
    """The files of the external sources among the inputs, by argument: no stage made them, so no manifest has them."""
    found: dict[str, list[dict[str, Any]]] = {}
    for argument, value in inputs.items():
        for item in [] if value is None or isinstance(value, Artifact) else value:
            if not item.key:
                files = [asdict(file) for file in item.parts["files"].files]
                found.setdefault(argument, []).append({"name": item.name, "files": files})
    return found
