"""A finished output as the stages that read it see it: parts, files, hashes checked on first use."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_curation.files import File, copy_file, is_local, join, local_path, read_bytes, sha256_file
from data_curation.settings import InputError, sha256_of

DAMAGED = "{}: damaged, its sha256 is not the published one; --refresh of the stage that made it makes it again"
SMALL = 64 * 2**20  # files up to this size are re-hashed by every reader


@dataclass(frozen=True)
class Part:
    """A named share of an artifact's output: its files, in order of their paths."""

    files: tuple[File, ...]

    @property
    def digest(self) -> str:
        """Hex sha256 over the names and bytes of all files; rows and times do not enter."""
        return sha256_of([[file.path, file.size, file.sha256] for file in self.files])


@dataclass(frozen=True)
class Artifact:
    """A finished output that a stage reads: `home` is a URI, each part a folder of files below it."""

    name: str
    home: str
    parts: dict[str, Part]
    key: str = ""
    attempt: int = 0
    dropped: tuple[str, ...] = ()
    """Parts whose files were pruned on purpose; their digests stand."""

    def part(self, part: str) -> Part:
        """The part, or an error that names those which the stage declared to use."""
        if part not in self.parts:
            raise KeyError(f"{self.name}: part {part!r} is not among the declared inputs {sorted(self.parts)}")
        return self.parts[part]

    def uri(self, part: str, path: str = "") -> str:
        """URI of a part's folder or of one file in it."""
        return join(self.home, part, path)

    def uris(self, part: str, suffix: str = "") -> list[str]:
        """URIs of all files of a part, in order, whose names end with `suffix`."""
        return [self.uri(part, file.path) for file in self.part(part).files if file.path.endswith(suffix)]

    def read_json(self, part: str, path: str) -> Any:
        """A JSON file of a part, its hash checked."""
        file = next((file for file in self.part(part).files if file.path == path), None)
        if file is None:
            raise InputError(f"{self.name}: no file {path} in part {part}")
        self._check(part, file)
        return json.loads(read_bytes(self.uri(part, path)))

    def folder(self, part: str, scratch: Path) -> Path:
        """A local folder with the part's files, small ones verified: the store's own on disk, a copy from s3."""
        local = is_local(self.home)
        target = local_path(self.uri(part)) if local else scratch / "inputs" / f"{self.name}-{self.key[:12]}" / part
        for file in self.part(part).files:
            if not local:
                copy_file(self.uri(part, file.path), str(target / file.path))
            if (target / file.path).stat().st_size != file.size:
                raise InputError(f"{self.uri(part, file.path)}: {file.size} bytes were published, other are there")
            if file.size <= SMALL and sha256_file(str(target / file.path)) != file.sha256:
                raise InputError(DAMAGED.format(self.uri(part, file.path)))
        return target

    def only(self, parts: tuple[str, ...]) -> "Artifact":
        """The same artifact, seen through the parts that a stage declared."""
        dropped = tuple(name for name in self.dropped if name in parts)
        seen = {name: self.part(name) for name in parts}
        return Artifact(self.name, self.home, seen, self.key, self.attempt, dropped)

    def _check(self, part: str, file: File) -> None:
        if file.size <= SMALL and sha256_file(self.uri(part, file.path)) != file.sha256:
            raise InputError(
                f"{self.uri(part, file.path)}: damaged, its sha256 is not the published one; --refresh makes it again"
            )
