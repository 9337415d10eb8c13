"""The curves that a working stage tells of, as plots for its page."""

from typing import Any

from data_curation.progress import MOST, thin
from tasks.plots import draw

MILLION = 1e6


class Curves:
    """Values by units done, by name; however long a stage works, they hold a few hundred points each."""

    def __init__(self) -> None:
        self.unit = ""
        self.points: dict[str, list[tuple[float, float]]] = {}
        self.newest: dict[str, list[tuple[float, float]]] = {}
        """Those that do not make a point yet."""
        self.each: dict[str, int] = {}
        """Values that make a point."""

    def add(self, line: dict[str, Any]) -> None:
        """A line of progress; the one with "curves" begins them anew."""
        self.unit = line["unit"]
        if "curves" in line:
            self.points = {name: [(x, y) for x, y in points] for name, points in line["curves"].items()}
            self.newest, self.each = {}, {}
        for name, value in line.get("values", {}).items():
            self._add(name, line["done"], value)

    def _add(self, name: str, done: float, value: float) -> None:
        points, newest = self.points.setdefault(name, []), self.newest.setdefault(name, [])
        newest.append((done, value))
        if len(newest) == self.each.setdefault(name, 1):
            points += thin(newest, 1)
            newest.clear()
        if len(points) >= MOST:
            self.points[name] = thin(points, MOST // 2)
            self.each[name] *= 2

    def draw(self) -> dict[str, bytes]:
        """An SVG of each by name."""
        last = max((points[-1][0] for points in self.points.values() if points), default=0.0)
        scale, unit = (MILLION, f"million {self.unit}") if last >= MILLION else (1, self.unit)
        return {name: draw(self._plot(name, scale, unit)) for name, points in self.points.items() if points}

    def _plot(self, name: str, scale: float, unit: str) -> dict[str, Any]:
        series = {name: [[x / scale, y] for x, y in self.points[name]]}
        return {"title": f"{name} so far", "x": unit, "y": name, "series": series, "kind": "line"}
