"""Guarantees of a stage's progress where there is no terminal: a line a minute with the time left, and curves."""

from typing import Any

import pytest

from tasks.curves import Curves
from tasks.progress import Display


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


def line(done: int, **more: Any) -> dict[str, Any]:
    """What a stage of 10 tasks prints."""
    return {"unit": "tasks", "done": done, "total": 10, "text": ""} | more


def shown(*lines: tuple[float, dict[str, Any]]) -> list[str]:
    """What is said of lines that come at these seconds."""
    return followed(*lines)[0]


def followed(*lines: tuple[float, dict[str, Any]]) -> tuple[list[str], list[tuple[float, dict[str, Any]]], Curves]:
    """What is said, the times and points of each page, and the curves at the end."""
    said, pages, clock = list[str](), list[tuple[float, dict[str, Any]]](), Clock()

    def page(_: str, curves: Curves) -> None:
        pages.append((clock.now, {name: list(points) for name, points in curves.points.items()}))

    with Display("extract", said.append, page, clock) as display:
        for clock.now, one in lines:
            display.show(one)
    return said, pages, display.curves


def test_a_line_a_minute():
    """However many lines a stage prints, one a minute is said."""
    assert shown(*((second / 2, line(0)) for second in range(400))) == ["extract: 0/10 tasks"] * 3


def test_the_time_left_is_that_of_what_was_done_here():
    """Tasks that an earlier attempt completed do not count as speed."""
    assert shown((0, line(4)), (120, line(6))) == ["extract: 6/10 tasks, about 0:04:00 left"]


def test_a_large_file_shows_how_far_it_is():
    """Lines from inside a file stand beside the tasks, which they do not change."""
    inside = {"unit": "bytes", "done": 30, "total": 120, "text": "a.warc.gz", "inside": True}
    assert shown((0, line(1)), (60, inside), (120, line(2))) == [
        "extract: 1/10 tasks, a.warc.gz 25%",
        "extract: 2/10 tasks, about 0:16:00 left",
    ]


def test_a_page_every_half_minute_has_the_curves_so_far():
    """However often values come, and those of an earlier attempt are there; what a step back takes away is not."""
    lines = [line(second, values={"loss": 1 / (1 + second)}) for second in range(70)]
    _, pages, _ = followed(*enumerate(lines))
    assert [second for second, _ in pages] == [30, 60]
    assert pages[0][1]["loss"] == [(second, 1 / (1 + second)) for second in range(31)]
    again = line(2, curves={"loss": [[1, 0.5], [2, 0.4]]})
    _, pages, _ = followed((0, line(5, values={"loss": 9.0})), (10, again), (40, line(3, values={"loss": 0.3})))
    assert pages == [(40, {"loss": [(1, 0.5), (2, 0.4), (3, 0.3)]})]


def test_curves_stay_small_and_keep_their_shape():
    """A straight line of 10,000 values remains one, in a few hundred points from its first hundredth to its last."""
    _, _, curves = followed(*((0, line(done, values={"loss": 3.0 * done})) for done in range(10_000)))
    points = curves.points["loss"]
    assert 100 < len(points) <= 400 and points[0][0] < 100 and points[-1][0] > 9_900
    assert all(y == pytest.approx(3.0 * x) for x, y in points)
    assert list(curves.draw()) == ["loss"]
