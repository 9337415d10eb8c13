"""A place for a stage to work in, and artifacts made of what was written, as the spine makes them."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.documents import DOCUMENTS, read_rows, write_table
from data_curation.place import Place, Resources, parts_of


def place(home: Path | str, scratch: Path, *, workers: int = 1, seconds: float = 600.0) -> Place:
    """An empty place."""
    scratch.mkdir(parents=True, exist_ok=True)
    return Place(str(home), scratch, Resources(workers=workers, log_seconds=1e9, task_seconds=seconds))


def artifact(where: Place, name: str = "made") -> Artifact:
    """What a finished stage published there."""
    return Artifact(name, where.home, parts_of(where.pieces()), key=name)


def documents(home: Path, files: Iterable[Iterable[dict[str, Any]]]) -> Artifact:
    """An artifact of documents, one list of rows per file; fields that a row leaves out are empty."""
    where = place(home, home / "scratch")
    empty = dict.fromkeys(DOCUMENTS.names, "") | {"language_score": None, "quality": None}
    for rank, rows in enumerate(files):
        with where.piece(f"{rank:05d}") as piece:
            write_table(piece, "documents", f"{rank:05d}.parquet", ({**empty, **row} for row in rows), DOCUMENTS)
    return artifact(where, "documents")


def rows(made: Artifact, part: str = "documents") -> list[dict[str, Any]]:
    """All rows of a part."""
    return [row for uri in made.uris(part, ".parquet") for row in read_rows(uri)]


def run(
    stage: Callable[..., Counts], config: Any, *inputs: Any, home: Path | str, scratch: Path, workers: int = 1
) -> tuple[Artifact, Counts]:
    """Run a stage in a fresh place; its artifact and counts."""
    where = place(home, scratch, workers=workers)
    counts = stage(config, *inputs, where)
    return artifact(where, stage.__name__), counts
