"""What a stage says of its work: units in and out, drops with reasons, metrics, gates, warnings."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Counts:
    """What a stage says of its work; all of it is shown on its page and in the report, none of it is identity."""

    taken: dict[str, int] = field(default_factory=dict)
    """Units that came in: {"documents": 13476, "bytes": ...}."""
    made: dict[str, int] = field(default_factory=dict)
    """Units that went out."""
    funnel: list[dict[str, Any]] = field(default_factory=list)
    """Drops, in the order of the steps: {"step", "reason", "documents", "bytes"}, and "words" where they are known."""
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    """{name: {"value", "n", "standard_error"}}; n and standard_error may be None."""
    gates: list[dict[str, Any]] = field(default_factory=list)
    """{"gate", "value", "standard_error", "against", "passed"}: shown as passed or failed."""
    samples: list[dict[str, Any]] = field(default_factory=list)
    """A few examples for a person: {"title", "text"}."""
    warnings: list[str] = field(default_factory=list)
    """Sentences that a person should read."""

    def add(self, other: "Counts") -> None:
        """Add another task's counts: numbers sum, lists join, equal funnel rows merge."""
        for mine, theirs in ((self.taken, other.taken), (self.made, other.made)):
            for unit, number in theirs.items():
                mine[unit] = mine.get(unit, 0) + number
        rows = {(row["step"], row["reason"]): row for row in self.funnel}
        for row in other.funnel:
            known = rows.get((row["step"], row["reason"]))
            if known is None:
                rows[row["step"], row["reason"]] = dict(row)
            else:
                known |= {unit: known[unit] + row[unit] for unit in ("documents", "bytes", "words") if unit in known}
        self.funnel = list(rows.values())
        self.metrics.update(other.metrics)
        self.gates += other.gates
        self.samples += other.samples
        self.warnings += [warning for warning in other.warnings if warning not in self.warnings]
