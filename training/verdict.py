"""What a gate says, in a word for pages, report, card and comparison, and whether it may end a run."""

from collections.abc import Mapping
from typing import Any

PASSED, FAILED, ADVISORY, UNMEASURED = "passed", "failed", "failed (advisory)", "not measured"


def outcome(row: Mapping[str, Any]) -> str:
    """One of these words for a row of Counts.gates; a row without a value measured nothing.

    An advisory gate decides whether later stages use something, such as a reward model; they go on without it.
    """
    if row["value"] is None:
        return UNMEASURED
    if row["passed"]:
        return PASSED
    return ADVISORY if row.get("advisory", False) else FAILED


def stops(row: Mapping[str, Any]) -> bool:
    """Whether the row ends a run whose gates are enforced: not where nothing was measured, nor where it is advisory."""
    return outcome(row) == FAILED
