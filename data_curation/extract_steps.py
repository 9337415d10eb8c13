"""The datatrove steps of `extract`: read records, take their text."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import xxhash
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from data_curation import records
from data_curation.decisions import Decisions, Subject, sizes
from data_curation.engine import run_pipeline
from data_curation.extract import ExtractConfig
from data_curation.html_text import extract_html
from data_curation.place import PieceWriter
from data_curation.settings import InputError
from data_curation.table_steps import WriteTable

_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+")


@dataclass
class Task:
    """What the steps of one task share."""

    config: ExtractConfig
    source: int
    decisions: Decisions = field(default_factory=lambda: Decisions("extract"))
    bad: list[str] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)


def run(
    config: ExtractConfig, source: int, files: Iterable[tuple[str, str, int]], rank: int, piece: PieceWriter
) -> None:
    """Extract one task's files (path, uri, bytes) into one file of documents and one of decisions."""
    task, name = Task(config, source), f"{rank:05d}.parquet"
    run_pipeline([ReadRecords(task, list(files)), TakeText(task), WriteTable(piece, name)], rank)
    task.decisions.write(piece, name)
    piece.piece.note["bad"] = task.bad
    piece.piece.counts.samples += task.samples


class ReadRecords(PipelineStep):
    """Documents without text yet; the raw record lies in the metadata. A damaged file is left out as a whole."""

    type = "READER"
    name = "records"

    def __init__(self, task: Task, files: list[tuple[str, str, int]]) -> None:
        super().__init__()
        self.task, self.files = task, files

    def run(self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Read all files of the task."""
        source = self.task.config.sources[self.task.source]
        for path, uri, size in self.files:
            if not self._usable(path, uri, size):
                continue
            for raw in records.read(uri, source.kind, path, self.task.config.max_bytes):
                hasher = xxhash.xxh3_128(f"{source.name}\0{raw.url}\0".encode("utf-8", "replace"))
                hasher.update(raw.record)
                yield Document("", hasher.hexdigest(), metadata={"raw": raw, "source": source.name})

    def _usable(self, path: str, uri: str, size: int) -> bool:
        """Whether the file is whole. Where bad ones are allowed it is read to its end first: nothing is half used."""
        source, config = self.task.config.sources[self.task.source], self.task.config
        try:
            if config.max_bad_files:
                records.check(uri, source.kind, path, size, config.max_bytes)
            else:
                records.check_size(uri, size)
        except InputError as error:
            if not config.max_bad_files:
                raise
            self.task.bad.append(str(error))
            about = Subject("", uri.rsplit("/", 1)[-1], source.name, "", size, 0)
            self.task.decisions.drop(about, "file", "bad-file", str(error), path=path)
            return False
        return True


class TakeText(PipelineStep):
    """The text of each record, or the reason of its drop."""

    type = "EXTRACTOR"
    name = "text"

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def run(self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Extract each document that comes."""
        decisions, config = self.task.decisions, self.task.config
        for document in data or ():
            raw: records.Raw = document.metadata.pop("raw")
            about = Subject(document.id, raw.url, document.metadata["source"], "", len(raw.record), 0)
            title, declared, reason, step = raw.title, "", raw.drop, "record"
            document.text = raw.text or ""
            if raw.html is not None:
                found = extract_html(
                    raw.html,
                    raw.url,
                    charset=raw.charset,
                    max_bytes=config.max_bytes,
                    max_depth=config.max_depth,
                    main_share=config.main_share,
                )
                document.text, title, reason, step = found.text, found.title, found.reason, "extract"
                declared = found.languages[0] if found.languages else ""
            elif not reason and not document.text.strip():
                reason, step = "no-text", "extract"
            if reason:
                decisions.drop(about, step, reason)
                continue
            decisions.keep(about, sizes(document.text))
            document.metadata |= {"url": raw.url, "date": raw.date, "title": title, "declared_language": declared}
            if not self.task.samples:
                self.task.samples.append({"title": raw.url, "text": _ADDRESS.sub("[address]", document.text[:400])})
            yield document
