"""Where one attempt of a stage works: pieces that survive it, records, progress."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from data_curation.artifact import SMALL, Artifact, Part
from data_curation.counts import Counts
from data_curation.files import (
    File,
    Writer,
    copy_file,
    filesystem,
    join,
    listing,
    read_bytes,
    remove,
    sha256_file,
    write_bytes,
    writing,
)
from data_curation.progress import Progress
from data_curation.settings import InputError, Settings


class Resources(Settings):
    """What a stage may use on this machine; never part of a key."""

    workers: int = Field(default=2, ge=1)
    """Processes of a curation stage."""
    threads: int = Field(default=2, ge=1)
    """CPU threads of a training process."""
    ranks: int = Field(default=1, ge=1)
    """Processes that train one model, one per GPU; alignment stages use those of one node."""
    nodes: int = Field(default=1, ge=1)
    """Machines that they lie on, equally many on each."""
    launcher: str = "srun --nodes {nodes} --ntasks-per-node 1"
    """Words before a command that start it once on each of several nodes; {nodes} is their number."""
    context_ranks: int = Field(default=1, ge=1)
    """So many of them share the tokens of each row (context parallelism): for rows that are too long for one GPU."""
    shard_ranks: int | None = Field(default=None, ge=1)
    """So many of them hold the weights in shares, each further set a copy (HSDP); none: the ranks of a node."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models compute; `auto` takes a GPU if there is one."""
    micro_batch_tokens: int | None = Field(default=None, ge=1)
    """Tokens of one forward pass; none lets the stage choose. Does not change the global batch."""
    recompute: bool = False
    """Activation checkpointing in alignment, as `pretrain.recompute: full`: for long rows, a third more work."""
    checkpoint_seconds: float = Field(default=300.0, ge=0)
    """Seconds between two checkpoints of a training stage: what a kill costs at most."""
    checkpoint_steps: int | None = Field(default=None, ge=1)
    """Steps between two checkpoints of pretraining, besides those that `checkpoint_seconds` asks for."""
    grace_seconds: float = Field(default=120.0, ge=0)
    """Seconds that a stage has to save its work when the run ends before it; then it is killed."""
    stall_seconds: float = Field(default=900.0, gt=0)
    """Seconds without a step after which pretraining counts as hung and is ended; the first step compiles."""
    log_seconds: float = Field(default=10.0, ge=0)
    """Seconds between two progress lines."""
    trackers: list[Literal["tensorboard", "wandb", "trackio", "mlflow"]] = []
    """Where pretraining sends its metrics besides records/steps.jsonl; each is a package of that name to install."""
    cache_gigabytes: float = 100.0
    """Local disk for shards that pretraining reads from s3; those read longest ago make room."""
    task_seconds: float = Field(default=3600.0, gt=0)
    """A curation task that takes longer is ended and the stage fails."""


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
        """Take over the complete pieces of an earlier attempt (its URI) whose bytes match; returns their names.

        Pieces that are here already stay. One that is removed meanwhile, by the last breath of a process that was
        killed, is passed over.
        """
        before = Place(earlier, self.scratch, self.resources, self.name)
        taken: list[str] = []
        for piece in before.pieces():
            files = [(part, file) for part, files in piece.files.items() for file in files]
            if self.done(piece.name) or not all(_intact(join(earlier, part, file.path), file) for part, file in files):
                continue
            try:
                for part, file in files:
                    copy_file(join(earlier, part, file.path), join(self.home, part, file.path))
                copy_file(before._piece_uri(piece.name), self._piece_uri(piece.name))
            except FileNotFoundError:
                continue
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

    def progress(self, unit: str, total: int | None = None) -> Progress:
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
    try:
        return fs.size(path) == file.size and sha256_file(uri) == file.sha256
    except FileNotFoundError:
        return False
