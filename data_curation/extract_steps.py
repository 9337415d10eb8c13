"""The datatrove steps of `extract`: read records, take their text, withdraw those of damaged files."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import xxhash
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from data_curation import records
from data_curation.block_list import block_list
from data_curation.decisions import Decisions, Subject, sizes
from data_curation.engine import run_pipeline
from data_curation.extract import BAD, ExtractConfig, too_many_files
from data_curation.held import Held
from data_curation.html_text import extract_html
from data_curation.place import PieceWriter
from data_curation.progress import InFile
from data_curation.settings import InputError
from data_curation.sources.shares import Listed, Share
from data_curation.sources.source import Source
from data_curation.sources.streams import check_size, opened
from data_curation.table_steps import WriteTable

_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+")
_SEED = 1
"""Of the hash that decides on a fraction: it must not be the document's id, by which other stages choose."""


@dataclass
class Task:
    """What the steps of one task share."""

    config: ExtractConfig
    share: Share
    log_seconds: float
    decisions: Decisions = field(default_factory=lambda: Decisions("extract"))
    bad: list[str] = field(default_factory=list)
    sample: dict[str, Any] | None = None


def run(config: ExtractConfig, share: Share, rank: int, piece: PieceWriter) -> None:
    """Extract one task's files into one file of documents and one of decisions."""
    task, name = Task(config, share, piece.place.resources.log_seconds), f"{rank:05d}.parquet"
    run_pipeline([WholeFiles(task, str(piece.place.scratch)), WriteTable(piece, name)], rank)
    task.decisions.write(piece, name)
    rows = [row for row in task.decisions.rows if row["step"] != "file"]
    wrong = [row["passage"] for row in rows if row["reason"] == BAD]
    piece.piece.note |= {"bad": task.bad, "read": len(rows), "wrong": len(wrong), "first": wrong[0] if wrong else ""}
    piece.piece.note["source"] = config.sources[share.source].name
    piece.piece.counts.samples += [task.sample] if task.sample else []


class WholeFiles(PipelineStep):
    """The documents of the task's files. A file that turns out to be damaged is withdrawn as a whole, and named.

    A file's documents wait until it was read to its end, so each is read once, and nothing of it is half used.
    """

    type = "READER"
    name = "whole files"

    def __init__(self, task: Task, scratch: str) -> None:
        super().__init__()
        self.task, self.scratch = task, scratch
        self.text = TakeText(task)

    def run(self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Hand on the documents of one file after another."""
        rows = self.task.decisions.rows
        for file in self.task.share.files:
            before, sample = len(rows), self.task.sample
            with Held(self.scratch) as held:
                try:
                    for document in self.text.run(read_file(self.task, file)):
                        held.add(document)
                    self._look(file, rows[before:])
                except InputError as error:
                    read = len(rows) - before
                    del rows[before:]
                    self.task.sample = sample
                    self._withdraw(file, read, error)
                    continue
                yield from held

    def _look(self, file: Listed, rows: list[dict[str, Any]]) -> None:
        """What only a file's end shows: that it held nothing, or nothing that can be used."""
        if not rows:
            self.task.decisions.drop(self._about(file), "file", "empty-file", file.path)
        elif all(row["reason"] == BAD for row in rows):
            raise InputError(f"{file.uri}: none of its {len(rows)} records can be used: {rows[0]['passage']}")

    def _withdraw(self, file: Listed, read: int, error: InputError) -> None:
        words = f"{error} ({read} records were read, none is used)"
        self.task.bad.append(words)
        if len(self.task.bad) > self.task.config.max_bad_files:
            raise InputError(too_many_files(self.task.config, self.task.bad)) from error
        # What is published must not depend on where the file lies.
        passage = words.replace(file.uri, file.path)
        self.task.decisions.drop(self._about(file), "file", "bad-file", passage, path=file.path, records_read=read)

    def _about(self, file: Listed) -> Subject:
        source = self.task.config.sources[self.task.share.source].name
        return Subject("", file.path.rsplit("/", 1)[-1], source, "", file.size, 0)


def read_file(task: Task, file: Listed) -> Iterator[Document]:
    """Documents without text yet, up to as many usable ones as the file may give; the record lies in the metadata."""
    source = task.config.sources[task.share.source]
    taken = 0
    for raw in _raw(source, file, task):
        hasher = xxhash.xxh3_128(f"{source.name}\0{raw.url}\0".encode("utf-8", "replace"))
        hasher.update(raw.record)
        document = Document("", hasher.hexdigest(), metadata={"raw": raw, "source": source.name})
        raw.note = f"{file.path}: {raw.note}" if raw.note else ""
        raw.drop = raw.drop or ("" if _drawn(document.id, task.share.fraction) else "not-drawn")
        taken += not raw.drop
        yield document
        if taken == file.most:
            return


def _raw(source: Source, file: Listed, task: Task) -> Iterator[records.Raw]:
    most = task.config.max_bytes
    if source.kind == "hub":
        from data_curation.sources import hub

        yield from hub.read(source, file.uri, most, source.row_fields)
        return
    kind = "warc" if source.kind == "web-packages" else source.kind
    check_size(file.uri, file.size)
    progress = InFile(file.path, file.size, task.log_seconds)
    with opened(file.uri) as stream:
        for raw in records.parse(stream, kind, file.path, most, source.row_fields):
            progress.at(stream.taken)
            yield raw


class TakeText(PipelineStep):
    """The text of each record, or the reason of its drop."""

    type = "EXTRACTOR"
    name = "text"

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task, self.blocked = task, block_list(task.config.blocked)

    def run(self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Extract each document that comes."""
        decisions = self.task.decisions
        for document in data or ():
            raw: records.Raw = document.metadata.pop("raw")
            size = raw.size or len(raw.record)
            about = Subject(document.id, _utf8(raw.url), document.metadata["source"], "", size, 0)
            if self.blocked.has(about.id, about.url):
                decisions.drop(about, "record", "taken-down")
                continue
            if raw.drop:
                decisions.drop(about, "sample" if raw.drop == "not-drawn" else "record", raw.drop, _utf8(raw.note))
                continue
            title, language, reason = self._take(raw, document)
            if reason:
                decisions.drop(about, "extract", reason)
                continue
            decisions.keep(about, sizes(document.text))
            document.metadata |= {"url": about.url, "date": raw.date, "title": title, "declared_language": language}
            if self.task.sample is None:
                self.task.sample = {"title": raw.url, "text": _ADDRESS.sub("[address]", document.text[:400])}
            yield document

    def _take(self, raw: records.Raw, document: Document) -> tuple[str, str, str]:
        """Put the record's text into the document; returns title, declared language and the reason of a drop."""
        if raw.html is None:
            document.text = raw.text or ""
            return raw.title, raw.language, "" if document.text.strip() else "no-text"
        config = self.task.config
        found = extract_html(
            raw.html,
            raw.url,
            charset=raw.charset,
            max_bytes=config.max_bytes,
            max_depth=config.max_depth,
            main_share=config.main_share,
        )
        document.text = found.text
        return found.title, found.languages[0] if found.languages else "", found.reason


def _drawn(identity: str, fraction: float) -> bool:
    """Whether a record is in the share that is taken: by its hash, so that no order and no other record matters."""
    return fraction >= 1 or xxhash.xxh3_64_intdigest(identity, seed=_SEED) < fraction * 2**64


def _utf8(text: str) -> str:
    """The text without what no file takes: a note quotes what was wrong."""
    return text.encode("utf-8", "replace").decode()
