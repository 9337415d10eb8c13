"""Shows a stage's progress: a bar in a terminal, otherwise a log line a minute at most."""

import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LOG_SECONDS = 60.0


class Display:
    """Progress of one stage for whoever looks: `show` takes what the child process printed."""

    def __init__(self, name: str, say: Callable[[str], None]) -> None:
        self.name, self.say = name, say
        self.last = time.monotonic()
        self.bar: Progress | None = None
        if sys.stderr.isatty():
            columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
            self.bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            self.task = self.bar.add_task(name, total=None)

    def __enter__(self) -> "Display":
        """Start the bar, if there is a terminal."""
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar."""
        if self.bar:
            self.bar.stop()

    def show(self, line: dict[str, Any]) -> None:
        """One progress line: {"unit", "done", "total", "text"}."""
        of = f"/{line['total']:,}" if line["total"] else ""
        text = f"{self.name}: {line['done']:,}{of} {line['unit']} {line['text']}".rstrip()
        if self.bar:
            self.bar.update(
                self.task, description=f"{self.name} {line['text']}", completed=line["done"], total=line["total"]
            )
        # A log line a minute keeps the run's page and its database small.
        if time.monotonic() - self.last >= LOG_SECONDS:
            self.last = time.monotonic()
            self.say(text)
