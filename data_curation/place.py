"""What every stage is handed (artifacts, a place to write) and what it gives back (counts)."""

import json
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_curation.files import (
    File,
    Writer,
    copy_file,
    filesystem,
    is_local,
    join,
    listing,
    local_path,
    read_bytes,
    remove,
    sha256_file,
    write_bytes,
    writing,
)
from data_curation.settings import InputError, Settings, sha256_of

SMALL = 64 * 2**20  # files up to this size are re-hashed by every reader


class Resources(Settings):
    """What a stage may use on this machine; never part of a key."""

    workers: int = 2
    """Processes of a curation stage."""
    threads: int = 2
    """CPU threads of a training process."""
    device: str = "auto"
    """`cpu`, `cuda` or `auto`."""
    micro_batch_tokens: int | None = None
    """Tokens of one forward pass; none lets the stage choose. Does not change the global batch."""
    checkpoint_seconds: float = 30.0
    """Seconds between two checkpoints of a training stage."""
    log_seconds: float = 10.0
    """Seconds between two progress lines."""
    task_seconds: float = 3600.0
    """A curation task that takes longer is ended and the stage fails."""


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
                raise InputError(f"{self.uri(part, file.path)}: damaged, its sha256 is not the published one")
        return target

    def only(self, parts: tuple[str, ...]) -> "Artifact":
        """The same artifact, seen through the parts that a stage declared."""
        return Artifact(self.name, self.home, {name: self.part(name) for name in parts}, self.key, self.attempt)

    def _check(self, part: str, file: File) -> None:
        if file.size <= SMALL and sha256_file(self.uri(part, file.path)) != file.sha256:
            raise InputError(f"{self.uri(part, file.path)}: damaged, its sha256 is not the published one")


@dataclass
class Counts:
    """What a stage says of its work; all of it is shown on its page and in the report, none of it is identity."""

    taken: dict[str, int] = field(default_factory=dict)
    """Units that came in: {"documents": 13476, "bytes": ...}."""
    made: dict[str, int] = field(default_factory=dict)
    """Units that went out."""
    funnel: list[dict[str, Any]] = field(default_factory=list)
    """Drops, in the order of the steps: {"step", "reason", "documents", "bytes"}."""
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    """{name: {"value", "n", "standard_error"}}; n and standard_error may be None."""
    gates: list[dict[str, Any]] = field(default_factory=list)
    """{"gate", "value", "standard_error", "against", "passed"}: shown as passed or failed."""
    samples: list[dict[str, Any]] = field(default_factory=list)
    """A few examples for a person: {"title", "text"}."""
    warnings: list[str] = field(default_factory=list)
    """Sentences that a person should read."""

    def add(self, other: "Counts") -> None:
        """Add another task's counts: numbers sum, lists join, equal funnel rows merge."""
        for mine, theirs in ((self.taken, other.taken), (self.made, other.made)):
            for unit, number in theirs.items():
                mine[unit] = mine.get(unit, 0) + number
        rows = {(row["step"], row["reason"]): row for row in self.funnel}
        for row in other.funnel:
            known = rows.get((row["step"], row["reason"]))
            if known is None:
                rows[row["step"], row["reason"]] = dict(row)
            else:
                known["documents"] += row["documents"]
                known["bytes"] += row["bytes"]
        self.funnel = list(rows.values())
        self.metrics.update(other.metrics)
        self.gates += other.gates
        self.samples += other.samples
        self.warnings += [warning for warning in other.warnings if warning not in self.warnings]


@dataclass
class Piece:
    """A share of a stage's output that is complete on its own and survives the attempt that made it."""

    name: str
    files: dict[str, list[File]] = field(default_factory=dict)
    """Part -> files. Parts that start with `work/` are kept for a retry and never published."""
    counts: Counts = field(default_factory=Counts)
    note: dict[str, Any] = field(default_factory=dict)
    """Anything else that the next piece needs, as plain JSON data."""


@dataclass
class Place:
    """Where one attempt of a stage works. Every process of the stage may hold one: it is plain data."""

    home: str
    """URI of this attempt; parts lie below it, `work/` beside them."""
    scratch: Path
    """Local folder for temporary files, removed afterwards."""
    resources: Resources = field(default_factory=Resources)
    name: str = "stage"
    """The stage's name in this run, for progress and errors."""

    def work(self, *path: str) -> str:
        """URI below `work/`: logs and checkpoints of this attempt, never published."""
        return join(self.home, "work", *path)

    # ---- pieces: complete shares of the output --------------------------------------------------------------------

    def done(self, name: str) -> Piece | None:
        """The complete piece of that name, made here or adopted from an earlier attempt of the same key."""
        try:
            return _piece_from(json.loads(read_bytes(self._piece_uri(name))))
        except FileNotFoundError:
            return None

    def pieces(self) -> list[Piece]:
        """All complete pieces, by name."""
        names = [path.removesuffix(".json") for path in listing(self.work("pieces")) if path.endswith(".json")]
        return [piece for name in names if (piece := self.done(name)) is not None]

    @contextmanager
    def piece(self, name: str) -> Generator["PieceWriter"]:
        """Write one piece; it becomes complete when the block ends without an error."""
        writer = PieceWriter(self, Piece(name))
        yield writer
        write_bytes(self._piece_uri(name), json.dumps(asdict(writer.piece)).encode())

    def drop(self, piece: Piece) -> None:
        """Forget a piece, its mark first, so that no half-removed piece is ever taken for a complete one."""
        remove(self._piece_uri(piece.name))
        for part, files in piece.files.items():
            for file in files:
                remove(join(self.home, part, file.path))

    def folder(self, piece: Piece, part: str) -> Path:
        """A local folder with a piece's files of one part; every hash is checked before anything is opened."""
        files = Part(tuple(piece.files[part]))
        view = Artifact(self.name, self.home, {part: files}, key=piece.name)
        folder = view.folder(part, self.scratch)
        for file in files.files:
            if file.size > SMALL and sha256_file(str(folder / file.path)) != file.sha256:
                raise InputError(f"{folder / file.path}: damaged, its sha256 is not the recorded one")
        return folder

    def adopt(self, earlier: str) -> list[str]:
        """Take over the complete pieces of an earlier attempt (its URI) whose bytes match; returns their names."""
        before = Place(earlier, self.scratch, self.resources, self.name)
        taken: list[str] = []
        for piece in before.pieces():
            files = [(part, file) for part, files in piece.files.items() for file in files]
            if not all(_intact(join(earlier, part, file.path), file) for part, file in files):
                continue
            for part, file in files:
                copy_file(join(earlier, part, file.path), join(self.home, part, file.path))
            copy_file(before._piece_uri(piece.name), self._piece_uri(piece.name))
            taken.append(piece.name)
        return taken

    def _piece_uri(self, name: str) -> str:
        return self.work("pieces", f"{name}.json")

    # ---- records and progress: for people, outside the digest -----------------------------------------------------

    def record(self, name: str, data: Any) -> None:
        """Keep plain JSON data beside the output (`records/NAME.json`)."""
        write_bytes(join(self.home, "records", f"{name}.json"), json.dumps(data).encode())

    def plot(
        self, name: str, title: str, x: str, y: str, series: dict[str, list[tuple[float, float]]], kind: str = "line"
    ) -> None:
        """Keep a plot's data; it is drawn for the stage's page and the report. `kind`: `line` or `bar` (x = index)."""
        self.record(f"plot-{name}", {"title": title, "x": x, "y": y, "series": series, "kind": kind})

    def progress(self, unit: str, total: int | None = None) -> "Progress":
        """A counter whose lines reach the terminal and the run's page, one in `log_seconds` at most."""
        return Progress(self.name, unit, total, self.resources.log_seconds)


class PieceWriter:
    """Writes the files of one piece."""

    def __init__(self, place: Place, piece: Piece) -> None:
        self.place, self.piece = place, piece

    @contextmanager
    def write(self, part: str, path: str) -> Generator[Writer]:
        """Open one file of a part for writing (bytes); set `.rows` on it where rows make sense."""
        with writing(join(self.place.home, part, path)) as out:
            yield out
        self.piece.files.setdefault(part, []).append(File(path, out.size, out.sha256.hexdigest(), out.rows))

    def send(self, part: str, folder: Path) -> None:
        """Copy a finished local folder into a part."""
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            with self.write(part, path.relative_to(folder).as_posix()) as out, path.open("rb") as stream:
                while block := stream.read(1 << 20):
                    out.write(block)

    def send_json(self, part: str, path: str, data: Any) -> None:
        """Write one small JSON file."""
        with self.write(part, path) as out:
            out.write(json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False).encode())


@dataclass
class Progress:
    """Progress of long work: `update(n)`; prints one machine-readable line to stdout, which the parent shows."""

    stage: str
    unit: str
    total: int | None
    seconds: float
    done: int = 0
    text: str = ""
    _last: float = field(default_factory=lambda: 0.0)
    clock: Callable[[], float] = time.monotonic

    def update(self, number: int = 1, text: str = "") -> None:
        """`number` more units are done; `text` is what a person wants to see beside (`loss 3.21`)."""
        self.done += number
        self.text = text or self.text
        if self.clock() - self._last >= self.seconds or self.done == self.total:
            self._last = self.clock()
            line = {"unit": self.unit, "done": self.done, "total": self.total, "text": self.text}
            print(f"@progress {json.dumps(line)}", file=sys.stdout, flush=True)


def parts_of(pieces: list[Piece]) -> dict[str, Part]:
    """The published parts of a finished stage: the files of all its pieces, by path."""
    files: dict[str, list[File]] = {}
    for piece in pieces:
        for part, some in piece.files.items():
            if not part.startswith("work/"):
                files.setdefault(part, []).extend(some)
    return {part: Part(tuple(sorted(some, key=lambda file: file.path))) for part, some in sorted(files.items())}


def _piece_from(data: dict[str, Any]) -> Piece:
    files = {part: [File(**file) for file in files] for part, files in data["files"].items()}
    return Piece(data["name"], files, Counts(**data["counts"]), data["note"])


def _intact(uri: str, file: File) -> bool:
    fs, path = filesystem(uri)
    return fs.exists(path) and fs.size(path) == file.size and sha256_file(uri) == file.sha256
