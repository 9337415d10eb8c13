"""Shows a stage's progress: a bar in a terminal, a log line a minute, a page with its curves."""

import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tasks.curves import Curves

LOG_SECONDS = 60.0
PAGE_SECONDS = 30.0


class Display:
    """Progress of one stage for whoever looks: `show` takes what the child process printed.

    `say` takes a line for the log, `page` the newest line and the curves so far.
    """

    def __init__(
        self,
        name: str,
        say: Callable[[str], None],
        page: Callable[[str, Curves], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.say, self.page, self.clock = name, say, page, clock
        self.said = self.drawn = clock()
        self.curves = Curves()
        self.first: tuple[float, int] | None = None
        """Time of the first line of work done here, and what was done by then."""
        self.line: dict[str, Any] = {"unit": "", "done": 0, "total": None, "text": ""}
        self.file = ""
        """Progress inside the large file that a worker reads just now."""
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
        """One line of the stage, {"unit", "done", "total", "text"}; with "inside" it tells of one file of a task."""
        if line.get("inside"):
            self.file = f"{line['text']} {line['done'] / max(1, line['total']):.0%}"
        else:
            self.line, self.file = line, ""
            self.curves.add(line)
            # What was done before says nothing about speed, nor does the first step, which may compile.
            self.first = None if "curves" in line else self.first or (self.clock(), line["done"])
        if self.bar:
            words = f"{self.name} {self.line['text']} {self.file}".rstrip()
            self.bar.update(self.task, description=words, completed=self.line["done"], total=self.line["total"])
        # A log line a minute keeps the run's page and its database small.
        if self.clock() - self.said >= LOG_SECONDS:
            self.said = self.clock()
            self.say(self._text())
        if self.clock() - self.drawn >= PAGE_SECONDS:
            self.page(self._text(), self.curves)
            self.drawn = self.clock()

    def _text(self) -> str:
        line = self.line
        of = f"/{line['total']:,}" if line["total"] else ""
        parts = [f"{self.name}: {line['done']:,}{of} {line['unit']} {line['text']}".rstrip(), self.file, self._left()]
        return ", ".join(part for part in parts if part)

    def _left(self) -> str:
        """The time left at the speed so far, where both are known."""
        if self.first is None or not self.line["total"]:
            return ""
        began, before = self.first
        done = self.line["done"] - before
        if done <= 0:
            return ""
        seconds = (self.clock() - began) / done * (self.line["total"] - self.line["done"])
        return f"about {timedelta(seconds=round(seconds))} left"
