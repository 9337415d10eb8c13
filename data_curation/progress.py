"""Progress of long work, printed as lines that the parent process understands."""

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MOST = 400
"""Points of a curve that are kept: more are not seen on a plot."""

Curve = Sequence[tuple[float, float]]
"""(units done, value), in order."""


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
    _values: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def begin(self, done: int, curves: Mapping[str, Curve]) -> None:
        """So many units are done, by an earlier attempt or before what is taken back; these values came of them."""
        self.done = done
        self._values.clear()
        thinned = {name: thin(points, MOST) for name, points in curves.items()}
        _tell({"unit": self.unit, "done": done, "total": self.total, "text": self.text, "curves": thinned})

    def update(self, number: int = 1, text: str = "", values: Mapping[str, float] | None = None) -> None:
        """`number` more units are done; `text` is what a person wants to see beside (`loss 3.21`).

        `values` are drawn over the units; a line tells their means since the last one.
        """
        self.done += number
        self.text = text or self.text
        for name, value in (values or {}).items():
            self._values.setdefault(name, []).append(value)
        if self.clock() - self._last >= self.seconds or self.done == self.total:
            self._last = self.clock()
            line: dict[str, Any] = {"unit": self.unit, "done": self.done, "total": self.total, "text": self.text}
            if self._values:
                line["values"] = {name: sum(some) / len(some) for name, some in self._values.items()}
                self._values.clear()
            _tell(line)


def thin(points: Curve, most: int) -> list[tuple[float, float]]:
    """The curve with at most so many points: means of neighbours, equally many in each."""
    each = max(1, math.ceil(len(points) / most))
    groups = [points[start : start + each] for start in range(0, len(points), each)]
    return [(sum(x for x, _ in some) / len(some), sum(y for _, y in some) / len(some)) for some in groups]


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
