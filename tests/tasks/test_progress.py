"""Guarantees of a stage's progress where there is no terminal: a line a minute, with the time left."""

from typing import Any

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
    said, clock = list[str](), Clock()
    with Display("extract", said.append, clock) as display:
        for clock.now, one in lines:
            display.show(one)
    return said


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
