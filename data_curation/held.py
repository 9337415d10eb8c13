"""Documents that wait, in memory as long as they are few, until it is known whether they may go on."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Self

from datatrove.data import Document

MEMORY = 64 << 20
"""Characters of text that wait in memory; what is beyond waits in a temporary file."""


class Held:
    """Documents in the order in which they were added. Use it in a `with` block, which removes the file."""

    def __init__(self, folder: str) -> None:
        self.folder, self.stack = folder, ExitStack()
        self.documents: list[Document] = []
        self.size = 0
        self.file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        """Nothing waits yet."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Forget what waits."""
        self.stack.close()

    def add(self, document: Document) -> None:
        """One more."""
        self.documents.append(document)
        self.size += len(document.text)
        if self.size > MEMORY:
            if self.file is None:
                self.file = self.stack.enter_context(TemporaryFile(dir=self.folder))  # noqa: SIM115
            for one in self.documents:
                self.file.write(json.dumps([one.text, one.id, one.metadata]).encode() + b"\n")
            self.documents, self.size = [], 0

    def __iter__(self) -> Iterator[Document]:
        if self.file is not None:
            self.file.seek(0)
            for line in self.file:
                text, identity, metadata = json.loads(line)
                yield Document(text, identity, metadata=metadata)
        yield from self.documents
