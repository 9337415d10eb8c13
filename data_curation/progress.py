"""Progress of long work, printed as lines that the parent process understands."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Progress:
    """Progress of long work: `update(n)`; prints one machine-readable line to stdout, which the parent shows."""

    stage: str
    unit: str
    total: int | None
    seconds: float
    done: int = 0
    text: str = ""
    _last: float = field(default_factory=lambda: 0.0)
    clock: Callable[[], float] = time.monotonic

    def update(self, number: int = 1, text: str = "") -> None:
        """`number` more units are done; `text` is what a person wants to see beside (`loss 3.21`)."""
        self.done += number
        self.text = text or self.text
        if self.clock() - self._last >= self.seconds or self.done == self.total:
            self._last = self.clock()
            _tell({"unit": self.unit, "done": self.done, "total": self.total, "text": self.text})


@dataclass
class InFile:
    """Progress inside one large file, from the worker that reads it; silent on what takes less than `seconds`.

    Its lines say `"inside": true`: they stand beside the stage's own, which count whole tasks.
    """

    path: str
    total: int
    """Bytes of the file."""
    seconds: float
    clock: Callable[[], float] = time.monotonic
    _last: float = -1.0

    def at(self, done: int) -> None:
        """So many bytes of the file are read."""
        if self._last < 0:
            self._last = self.clock()
        if self.clock() - self._last >= self.seconds:
            self._last = self.clock()
            _tell({"unit": "bytes", "done": done, "total": self.total, "text": self.path, "inside": True})


def _tell(line: dict[str, Any]) -> None:
    # One write: workers share a pipe, and print would write the line's end for itself.
    sys.stdout.write(f"@progress {json.dumps(line)}\n")
    sys.stdout.flush()
