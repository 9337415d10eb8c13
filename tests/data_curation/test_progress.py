"""Guarantees of progress: values as means between lines; inside a file in bytes, and only where it takes long."""

import json
from typing import Any

import pytest

from data_curation.progress import InFile, Progress


def said(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The lines of progress."""
    return [json.loads(line.removeprefix("@progress ")) for line in capsys.readouterr().out.splitlines()]


def test_no_value_between_two_lines_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    """A line has the means of all since the last one; what is done already is told at once, in few points."""
    now = [100.0]
    progress = Progress("train", "steps", 4096, 10.0, clock=lambda: now[0])
    progress.begin(1000, {"loss": [(step, 2.0 * step) for step in range(1, 1001)]})
    for step in range(6):
        progress.update(1, f"loss {step}", {"loss": float(step)})
        now[0] += 5
    first, *lines = said(capsys)
    assert first["done"] == 1000 and len(first["curves"]["loss"]) == 334
    assert all(y == pytest.approx(2 * x) for x, y in first["curves"]["loss"])
    assert [(line["done"], line["values"]) for line in lines] == [
        (1001, {"loss": 0.0}),
        (1003, {"loss": 1.5}),
        (1005, {"loss": 3.5}),
    ]


def test_only_long_files_speak(capsys: pytest.CaptureFixture[str]) -> None:
    """A line comes once the given seconds have passed, and then again after as many."""
    now = [100.0]
    inside = InFile("a.warc.gz", 1000, 10.0, clock=lambda: now[0])
    for second in range(25):
        now[0] = 100.0 + second
        inside.at(second * 40)
    lines = said(capsys)
    assert [(line["done"], line["total"], line["text"]) for line in lines] == [
        (400, 1000, "a.warc.gz"),
        (800, 1000, "a.warc.gz"),
    ]
    assert all(line["inside"] for line in lines)
