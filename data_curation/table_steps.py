"""The datatrove steps that read and write our tables of documents."""

from collections.abc import Iterable, Iterator
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from data_curation.documents import DOCUMENTS, read_rows, write_table
from data_curation.place import PieceWriter


class ReadTable(PipelineStep):
    """The documents of one of our Parquet files."""

    type = "READER"
    name = "table"

    def __init__(self, uri: str) -> None:
        super().__init__()
        self.uri = uri

    def run(self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Read all rows."""
        for row in read_rows(self.uri):
            yield Document(row.pop("text"), row.pop("id"), metadata=row)


class WriteTable(PipelineStep):
    """One Parquet file of documents in a piece."""

    type = "WRITER"
    name = "table"

    def __init__(self, piece: PieceWriter, path: str) -> None:
        super().__init__()
        self.piece, self.path = piece, path

    def run(self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Write all that comes; nothing is handed on."""
        write_table(self.piece, "documents", self.path, map(_row, data or ()), DOCUMENTS)
        yield from ()


def _row(document: Document) -> dict[str, Any]:
    named = {"declared_language": "", "language": "", "language_score": None, "quality": None} | document.metadata
    return {"id": document.id, "text": document.text, **{name: named[name] for name in DOCUMENTS.names[2:]}}
