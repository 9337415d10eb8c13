"""Draws the plots that a stage recorded as data, once, as SVG beside its output."""

import io
import json
import re
from typing import Any

from data_curation.files import join, listing, read_bytes, write_bytes
from data_curation.place import Place

INK = ["#2563eb", "#ea580c", "#16a34a", "#9333ea", "#dc2626", "#0891b2", "#ca8a04", "#4b5563"]

LABELLED = 12
"""With no more bars than these each has its number: one of nothing is not seen without."""


def draw_plots(place: Place) -> None:
    """Write `records/plot-NAME.svg` for every `records/plot-NAME.json`."""
    records = join(place.home, "records")
    names = [path for path in listing(records) if re.fullmatch(r"plot-[^/]+\.json", path)]
    for name in names:
        svg = draw(json.loads(read_bytes(join(records, name))))
        write_bytes(join(records, name.removesuffix(".json") + ".svg"), svg)


def draw(plot: dict[str, Any]) -> bytes:
    """One plot as a small self-contained SVG: {"title", "x", "y", "series": {label: [[x, y], ...]}, "kind"}."""
    # matplotlib takes half a second to import; only a process that draws pays it.
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "tokenmill", "svg.fonttype": "none", "font.size": 9})
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    series: dict[str, list[list[Any]]] = plot["series"]
    if plot["kind"] == "bar":
        if all(len(points) == 1 for points in series.values()):  # a series for each bar: its name belongs below it
            series = {"": [[label, points[0][1]] for label, points in series.items()]}
        _bars(axes, series)
    else:
        for ink, (label, points) in zip(INK * len(series), series.items(), strict=False):
            dot = "o" if len(points) == 1 else ""  # a line of one point is not seen
            x, y = [point[0] for point in points], [point[1] for point in points]
            axes.plot(x, y, label=label, color=ink, lw=1.2, marker=dot)
    axes.set(title=plot["title"], xlabel=plot["x"], ylabel=plot["y"])
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _bars(axes: Any, series: dict[str, list[list[Any]]]) -> None:
    """Grouped bars: every x (a word or a number) is a group, every series a bar in it."""
    names = list(dict.fromkeys(str(point[0]) for points in series.values() for point in points))
    width = 0.8 / max(len(series), 1)
    for index, (label, points) in enumerate(series.items()):
        places = [names.index(str(point[0])) + (index - (len(series) - 1) / 2) * width for point in points]
        bars = axes.bar(places, [point[1] for point in points], width, label=label, color=INK[index % len(INK)])
        if len(names) * len(series) <= LABELLED:
            axes.bar_label(bars, fmt="%.3g", fontsize=7)
    axes.set_xticks(range(len(names)), names, rotation=30 if max(map(len, names), default=0) > 4 else 0, ha="right")
