"""One conversation that passed validation as rows of the published tables; drops counted by step."""

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from data_curation.settings import canonical

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
DIALOGUES = pa.schema(
    [
        ("id", pa.string()),  # sha256 of the messages, 32 hex digits
        ("source", pa.string()),
        ("kind", pa.string()),  # chat | task
        ("messages", _MESSAGES),
        ("task", pa.string()),  # JSON {"family", "checker", "answer"} (checkers.py), empty for a chat
    ]
)
PREFERENCES = pa.schema(
    [
        ("id", pa.string()),  # sha256 of the messages and the rejected reply, 32 hex digits
        ("source", pa.string()),
        ("messages", _MESSAGES),  # the last one is the reply that was chosen
        ("rejected", pa.string()),  # the other reply to the same messages
        ("margin", pa.float64()),  # by which the chosen reply was scored higher, null where nobody scored
    ]
)
PASSAGE = 600
"""Characters of a dropped conversation that people are shown."""


@dataclass(frozen=True)
class Dialogue:
    """One conversation; of a preference record the one that ends with the chosen reply."""

    source: str
    messages: list[dict[str, str]]
    task: dict[str, str] | None = None
    rejected: str = ""
    """The other reply of a preference record."""
    margin: float | None = None
    """By which its chosen reply was scored higher, if somebody scored them."""

    @cached_property
    def id(self) -> str:
        """sha256 of the messages (and of the rejected reply), 32 hex digits."""
        said = [self.messages, self.rejected] if self.rejected else self.messages
        return hashlib.sha256(canonical(said)).hexdigest()[:32]

    @property
    def kind(self) -> str:
        """chat, task or preference."""
        return "preference" if self.rejected else "task" if self.task else "chat"

    @cached_property
    def prompt(self) -> str:
        """The first user prompt without case, punctuation, accents' forms and repeated space."""
        first = next(message["content"] for message in self.messages if message["role"] == "user")
        folded = unicodedata.normalize("NFKC", first).casefold()
        # A prompt of signs alone ("7 + 5 =" against "7 - 5 =") is told apart by them.
        return re.sub(r"\s+", " ", re.sub(r"[^\w\s+*/=<>-]", "", folded)).strip() or folded.strip()

    @property
    def asked(self) -> str:
        """What the assistant was asked, one below the other, without the system prompt."""
        return "\n".join(self._said("user"))

    @property
    def answered(self) -> str:
        """All that the assistant says, of a preference record on the chosen side."""
        return "\n".join(self._said("assistant"))

    @property
    def expected(self) -> str:
        """What the task's checker expects, as JSON; empty for a chat."""
        return canonical([self.task["checker"], self.task["answer"]]).decode() if self.task else ""

    @property
    def text(self) -> str:
        """All contents, one below the other."""
        said = [message["content"] for message in self.messages]
        return "\n".join([*said, self.rejected] if self.rejected else said)

    @property
    def size(self) -> int:
        """UTF-8 bytes of the contents."""
        return sum(len(message["content"].encode()) for message in self.messages) + len(self.rejected.encode())

    def _said(self, role: str) -> list[str]:
        return [message["content"] for message in self.messages if message["role"] == role]

    def row(self) -> dict[str, Any]:
        """The row of the published table."""
        named = {"id": self.id, "source": self.source, "messages": self.messages}
        if self.rejected:
            return {**named, "rejected": self.rejected, "margin": self.margin}
        return {**named, "kind": self.kind, "task": canonical(self.task).decode() if self.task else ""}


class Drops:
    """Counts of what was dropped, in the order of the steps, and one of each for people."""

    STEPS = ("validate", "fraction", "filter", "dedup", "decontaminate", "limit", "mix", "split")

    def __init__(self) -> None:
        self.counted: dict[tuple[str, str], list[int]] = {}
        self.shown: dict[tuple[str, str], str] = {}

    def add(self, step: str, reason: str, size: int) -> None:
        """One more record, which is no conversation."""
        row = self.counted.setdefault((step, reason), [0, 0])
        row[0] += 1
        row[1] += size

    def drop(self, step: str, reason: str, dialogue: Dialogue) -> None:
        """One more conversation."""
        self.add(step, reason, dialogue.size)
        self.shown.setdefault((step, reason), dialogue.text[:PASSAGE])

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the funnel."""
        return [
            {"step": step, "reason": reason, "documents": number, "bytes": size}
            for (step, reason), (number, size) in sorted(
                self.counted.items(), key=lambda item: (self.STEPS.index(item[0][0]), -item[1][0], item[0][1])
            )
        ]

    def samples(self) -> list[dict[str, Any]]:
        """The first conversation of each reason, what is personal in it masked."""
        from data_curation.pii import PiiConfig, replace

        return [
            {"title": f"dropped by {step}: {reason}", "text": replace(text, PiiConfig())[0]}
            for (step, reason), text in self.shown.items()
            if step not in ("fraction", "limit", "mix")
        ]

    def text(self) -> str:
        """All of them in one line, for an error."""
        return ", ".join(f"{row['documents']} {row['step']}: {row['reason']}" for row in self.rows())
