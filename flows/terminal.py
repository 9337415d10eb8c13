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


def seconds_of(entry: dict[str, Any]) -> str:
    """What a planned stage took when it was last made."""
    return f"{entry['seconds']:.0f}" if "seconds" in entry else ""


def count(number: int | None) -> str:
    """A number with separators, or nothing."""
    return f"{number:,}" if number else ""
