"""The records of chat sources, file by file, each as a validated conversation or a counted drop."""

import json
from collections.abc import Iterator
from typing import Any, cast

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.dialogue_rows import Dialogue, Drops
from data_curation.dialogue_tasks import check_reply, task_of, with_reply
from data_curation.dialogues import DialoguesConfig
from data_curation.preferences import margin_of, preference_of, sides_of
from data_curation.settings import InputError
from data_curation.sources.listing import uri_of
from data_curation.sources.source import Source
from data_curation.sources.streams import Opened, check_size, opened
from data_curation.turns import Dropped, messages_of, needs_tools, validated

LONGEST = 64 << 20
"""Bytes of a line above which it is not even parsed."""


def read(config: DialoguesConfig, listings: list[Artifact], counts: Counts, drops: Drops) -> Iterator[Dialogue]:
    """The conversations that pass validation and lie in their source's `fraction`; `counts.taken` counts all."""
    counts.taken = {"conversations": 0, "bytes": 0}
    for source, listed in zip(config.sources, listings, strict=True):
        for record, size in _records(source, listed):
            counts.taken["conversations"] += 1
            counts.taken["bytes"] += size
            try:
                dialogue = _dialogue(source.name, record, config)
            except Dropped as reason:
                drops.add("validate", str(reason), size)
                continue
            # Ids are hashes: an even sample, and a smaller fraction lies within a larger one.
            if int(dialogue.id[:8], 16) < source.fraction * 2**32:
                yield dialogue
            else:
                drops.drop("fraction", f"outside the fraction of {source.name}", dialogue)


def _dialogue(source: str, record: Any, config: DialoguesConfig) -> Dialogue:
    if isinstance(record, Dropped):
        raise record
    if not isinstance(record, dict):
        raise Dropped("unknown format")
    raw = cast(dict[str, Any], record)
    if needs_tools(raw):
        raise Dropped("needs tools")
    preference, task = preference_of(raw), task_of(raw, source)
    if preference:
        if task:
            raise Dropped("task beside a preference")
        messages, rejected = sides_of(preference, config.max_turns, config.max_bytes)
        return Dialogue(source, messages, rejected=rejected, margin=margin_of(preference))
    said = messages_of(raw, unanswered=task is not None)
    messages = validated(with_reply(task, said) if task else said, config.max_turns, config.max_bytes)
    if task:
        check_reply(task, messages[-1]["content"])
    return Dialogue(source, messages, task)


def _records(source: Source, listed: Artifact) -> Iterator[tuple[Any, int]]:
    """Every record with its size in bytes; what is no record comes as the reason of its drop."""
    from data_curation.sources import hub

    for file in listed.part("files").files:
        uri = uri_of(source, listed, file.path)
        if source.kind == "hub":
            yield from ((row, _size(row)) for row in hub.rows(source, uri))
            continue
        check_size(uri, file.size)
        with opened(uri) as stream:
            yield from _parquet(stream) if file.path.endswith(".parquet") else _jsonl(stream)


def _parquet(stream: Opened) -> Iterator[tuple[Any, int]]:
    import pyarrow as pa

    from data_curation.documents import parquet_file
    from data_curation.sources.rows import plain_rows

    try:
        for batch in parquet_file(stream).iter_batches(1000):
            for row in plain_rows(batch):
                yield (Dropped("content is not UTF-8"), 0) if row is None else (row, _size(row))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{stream.uri}: not a whole Parquet file: {error}; fetch it again") from None


def _jsonl(stream: Opened) -> Iterator[tuple[Any, int]]:
    from data_curation.sources.rows import lines
    from data_curation.sources.unpacking import blocks

    for line, size in lines(blocks(stream, stream.uri), LONGEST):
        if size > LONGEST:
            yield Dropped("longer than max_bytes"), size
        elif line.strip():
            yield _json(line), size


def _json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return Dropped("not JSON")


def _size(row: Any) -> int:
    return len(repr(row).encode("utf-8", "replace"))
