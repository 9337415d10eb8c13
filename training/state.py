"""Counters of a phase: what every step measured, which were skipped or stepped over."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class StepRecord:
    """What one step measured."""

    step: int
    """Of this phase, from 0."""
    loss: float
    """Mean cross entropy of its predicted tokens, nats."""
    labels: int
    """Predicted tokens."""
    bytes: int
    """UTF-8 bytes of the predicted tokens."""
    learning_rate: float
    gradient_norm: float
    """Before clipping."""


@dataclass(frozen=True)
class SkippedStep:
    """A step that was not taken."""

    step: int
    why: str


@dataclass(frozen=True)
class Rewind:
    """Steps whose data are stepped over, after a return to an earlier checkpoint."""

    first: int
    stop: int
    """The first step that is taken again."""
    why: str

    @property
    def name(self) -> str:
        """The piece that keeps it."""
        return f"rewind-{self.first:06d}-{self.stop:06d}"


@dataclass
class State:
    """Counters of a phase: with the model, the optimizer and the place in the data all that a resumed run needs."""

    step: int = 0
    """Steps of this phase that are done."""
    history: list[StepRecord] = field(default_factory=list)
    """One record per step that was taken."""
    skipped: list[SkippedStep] = field(default_factory=list)
    """Steps whose data were read and whose gradient was dropped."""
    rewinds: list[Rewind] = field(default_factory=list)
    """Kept in pieces of their own, for a checkpoint is older than the rewind that returns to it."""

    def copy(self) -> "State":
        """This moment, while training goes on."""
        return State(self.step, list(self.history), list(self.skipped), list(self.rewinds))

    def passed(self) -> set[int]:
        """The steps that are stepped over."""
        return {step for rewind in self.rewinds for step in range(rewind.first, rewind.stop)}

    def to_json(self) -> dict[str, Any]:
        """Plain data, a list for each column of the history: a long one is written in half the time."""
        columns = {one.name: [getattr(record, one.name) for record in self.history] for one in fields(StepRecord)}
        return {"step": self.step, "history": columns, "skipped": [asdict(step) for step in self.skipped]}

    @classmethod
    def from_json(cls, data: dict[str, Any], rewinds: list[Rewind]) -> "State":
        """What `to_json` gave."""
        names = [one.name for one in fields(StepRecord)]
        history = [StepRecord(*values) for values in zip(*(data["history"][name] for name in names), strict=True)]
        return cls(data["step"], history, [SkippedStep(**step) for step in data["skipped"]], rewinds)
