"""Tables for a person at a terminal."""

import sys
from typing import Any

from rich.console import Console
from rich.table import Table


def print_stages(stages: list[dict[str, Any]]) -> None:
    """The stages of a run, a line each."""
    rows = [[s["name"], s["state"], f"{s['seconds']:.1f}", (s["digest"] or "")[:12], s["why"]] for s in stages]
    print_table(["stage", "state", "seconds", "digest", "why"], rows)


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """A plain table, as wide as the terminal."""
    table = Table(*header, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 160, markup=False, emoji=False).print(table)


def duration(seconds: float | None, sure: bool = True) -> str:
    """Seconds, minutes, hours or days, with a tilde where they are estimated by rates from elsewhere."""
    if seconds is None:
        return ""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{'' if sure else '~'}{seconds / size:,.1f} {unit}"
    return f"{'' if sure else '~'}{seconds:.0f} s"


def megabytes(size: float | None) -> str:
    """Bytes as MB, GB or TB."""
    if size is None:
        return ""
    for unit, scale in (("TB", 1e12), ("GB", 1e9)):
        if size >= scale:
            return f"{size / scale:,.1f} {unit}"
    return f"{size / 1e6:,.1f} MB"


def count(number: int | None) -> str:
    """A number with separators, or nothing."""
    return f"{number:,}" if number else ""
