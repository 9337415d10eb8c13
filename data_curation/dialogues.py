"""Chat sources and generated tasks -> validated, unique conversations in splits that share no prompt."""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pydantic import Field

from data_curation import exercises
from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.documents import read_rows, write_table
from data_curation.files import filesystem
from data_curation.place import Place
from data_curation.settings import InputError, Settings, canonical
from data_curation.sources.listing import uri_of
from data_curation.sources.source import Source
from data_curation.turns import Dropped, messages_of, validated

DIALOGUES = pa.schema(
    [
        ("id", pa.string()),  # sha256 of the messages, 32 hex digits
        ("source", pa.string()),
        ("kind", pa.string()),  # chat | task
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("task", pa.string()),  # JSON {"family", "checker", "answer"}, empty for a chat
    ]
)
SPLITS: tuple[exercises.Split, ...] = ("train", "dev", "test")


class Tasks(Settings):
    """How many generated tasks each split gets."""

    train: int = Field(default=40_000, ge=0)
    """Tasks to learn from."""
    dev: int = Field(default=1_000, ge=0)
    """Tasks on which settings are chosen."""
    test: int = Field(default=1_000, ge=0)
    """Tasks that only the evaluation reads."""


class DialoguesConfig(Settings):
    """Which conversations are kept, and how they are split."""

    sources: list[Source] = []
    """Chat sources: packages, JSONL or Parquet in OpenAI messages, ShareGPT, Alpaca or prompt/completion form."""
    tasks: Tasks = Tasks()
    """Generated tasks per split."""
    families: list[str] = []
    """Families of generated tasks, drawn in turn; empty takes all."""
    seed: int = 0
    """Seed of the generated tasks and of the order of rows."""
    max_turns: int = Field(default=64, ge=2)
    """Messages of a conversation; longer ones are dropped."""
    max_bytes: int = Field(default=32_000, ge=1)
    """UTF-8 bytes of a conversation's contents; longer ones are dropped."""
    dev_share: float = Field(default=0.02, ge=0, lt=0.5)
    """Share of prompt clusters that go to `dev`."""
    test_share: float = Field(default=0.02, ge=0, lt=0.5)
    """Share of prompt clusters that go to `test`."""


@dataclass(frozen=True)
class Dialogue:
    """One conversation that passed validation."""

    source: str
    messages: list[dict[str, str]]
    task: dict[str, str] | None = None

    @property
    def id(self) -> str:
        """sha256 of the messages, 32 hex digits."""
        return hashlib.sha256(canonical(self.messages)).hexdigest()[:32]

    @property
    def cluster(self) -> str:
        """The first user prompt without case, punctuation, accents' forms and repeated space."""
        first = next(message["content"] for message in self.messages if message["role"] == "user")
        folded = unicodedata.normalize("NFKC", first).casefold()
        # A prompt of signs alone ("7 + 5 =" against "7 - 5 =") is told apart by them.
        return re.sub(r"\s+", " ", re.sub(r"[^\w\s+*/=<>-]", "", folded)).strip() or folded.strip()

    @property
    def size(self) -> int:
        """UTF-8 bytes of the contents."""
        return sum(len(message["content"].encode()) for message in self.messages)

    def row(self) -> dict[str, Any]:
        """The row of the published table."""
        kind, task = ("task", canonical(self.task).decode()) if self.task else ("chat", "")
        return {"id": self.id, "source": self.source, "kind": kind, "messages": self.messages, "task": task}


def dialogues(config: DialoguesConfig, sources: list[Artifact], place: Place) -> Counts:
    """Parts train, dev and test: one table each, chats and tasks mixed in an order drawn from the seed."""
    counts, drops = Counts(), _Drops()
    tasks = {split: _tasks(config, split) for split in SPLITS}
    owner = {dialogue.cluster: split for split in SPLITS for dialogue in tasks[split]}
    splits = {split: list(tasks[split]) for split in SPLITS}
    for dialogue in _chats(config, sources, counts, drops):
        split = _split(dialogue.cluster, config)
        if owner.get(dialogue.cluster, split) == split:
            splits[split].append(dialogue)
        else:
            drops.add("split", "prompt of a task of another split", dialogue.size)
    counts.funnel = drops.rows()
    if sources and not any(dialogue.task is None for split in SPLITS for dialogue in splits[split]):
        raise InputError(f"dialogues.sources: none of {counts.taken['conversations']} conversations survived: "
                         f"{drops.text() or 'the files are empty'}")  # fmt: skip
    if not splits["train"]:
        raise InputError("dialogues: the split `train` is empty: raise dialogues.tasks.train or add a source")
    for split in SPLITS:
        _publish(place, split, splits[split], config.seed, counts)
    return counts


def _publish(place: Place, split: str, rows: list[Dialogue], seed: int, counts: Counts) -> None:
    rows = sorted(rows, key=lambda row: hashlib.sha256(f"{seed}:{row.id}".encode()).digest())
    if place.done(split) is None:
        with place.piece(split) as piece:
            write_table(piece, split, "00000.parquet", (row.row() for row in rows), DIALOGUES)
    kinds = Counter("tasks" if row.task else "conversations" for row in rows)
    counts.made.update({f"{split} {kind}": number for kind, number in sorted(kinds.items())})
    counts.made["bytes"] = counts.made.get("bytes", 0) + sum(row.size for row in rows)
    for kind in ("conversations", "tasks") if split == "train" else ():
        found = next((row for row in rows if bool(row.task) == (kind == "tasks")), None)
        if found:
            text = "\n".join(f"{message['role']}: {message['content']}" for message in found.messages)
            counts.samples.append({"title": f"one of the {kind}, from {found.source}", "text": text})


def _tasks(config: DialoguesConfig, split: exercises.Split) -> list[Dialogue]:
    made = exercises.generate(split, getattr(config.tasks, split), config.seed, config.families)
    return [
        Dialogue(
            "exercises",
            [{"role": "user", "content": one.prompt}, {"role": "assistant", "content": one.answer}],
            one.task,
        )
        for one in made
    ]


def _chats(config: DialoguesConfig, sources: list[Artifact], counts: Counts, drops: "_Drops") -> Iterator[Dialogue]:
    """What survives validation, exact deduplication and each source's limit."""
    seen: set[str] = set()
    counts.taken = {"conversations": 0, "bytes": 0}
    for source, listed in zip(config.sources, sources, strict=True):
        kept: list[Dialogue] = []
        for record, size in _records(source, listed):
            counts.taken["conversations"] += 1
            counts.taken["bytes"] += size
            try:
                dialogue = Dialogue(source.name, _read(record, config))
            except Dropped as reason:
                drops.add("validate", str(reason), size)
                continue
            if dialogue.id in seen:
                drops.add("dedup", "exact repeat", dialogue.size)
                continue
            seen.add(dialogue.id)
            kept.append(dialogue)
        kept.sort(key=lambda dialogue: dialogue.id)  # ids are hashes: a limit takes an even sample
        for dialogue in kept[source.limit :] if source.limit else []:
            drops.add("limit", f"over the limit of {source.name}", dialogue.size)
        yield from kept[: source.limit]


def _records(source: Source, listed: Artifact) -> Iterator[tuple[Any, int]]:
    """Every record with its size in bytes; a line that is no JSON comes as the reason of its drop."""
    for file in listed.part("files").files:
        uri = uri_of(source, listed, file.path)
        if file.path.endswith(".parquet"):
            for row in read_rows(uri):
                yield row, len(repr(row).encode("utf-8", "replace"))
            continue
        fs, path = filesystem(uri)
        with fs.open(path, "rb", compression="infer") as stream:
            for line in stream:
                if line.strip():
                    yield _json(line), len(line)


def _json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return Dropped("not JSON")


def _read(record: Any, config: DialoguesConfig) -> list[dict[str, str]]:
    if isinstance(record, Dropped):
        raise record
    return validated(messages_of(record), config.max_turns, config.max_bytes)


def _split(cluster: str, config: DialoguesConfig) -> exercises.Split:
    place = int.from_bytes(hashlib.sha256(cluster.encode()).digest()[:8], "big") / 2**64
    if place < config.test_share:
        return "test"
    return "dev" if place < config.test_share + config.dev_share else "train"


class _Drops:
    """Counts of what was dropped, in the order of the steps."""

    def __init__(self) -> None:
        self.counted: dict[tuple[str, str], list[int]] = {}

    def add(self, step: str, reason: str, size: int) -> None:
        row = self.counted.setdefault((step, reason), [0, 0])
        row[0] += 1
        row[1] += size

    def rows(self) -> list[dict[str, Any]]:
        order = ("validate", "dedup", "limit", "split")
        return [
            {"step": step, "reason": reason, "documents": number, "bytes": size}
            for (step, reason), (number, size) in sorted(
                self.counted.items(), key=lambda item: (order.index(item[0][0]), -item[1][0], item[0][1])
            )
        ]

    def text(self) -> str:
        return ", ".join(f"{row['documents']} {row['step']}: {row['reason']}" for row in self.rows())
