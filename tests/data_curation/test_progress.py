"""Guarantees of progress inside a file: told in bytes of the file, and only where it takes long."""

import json

import pytest

from data_curation.progress import InFile


def test_only_long_files_speak(capsys: pytest.CaptureFixture[str]) -> None:
    """A line comes once the given seconds have passed, and then again after as many."""
    now = [100.0]
    inside = InFile("a.warc.gz", 1000, 10.0, clock=lambda: now[0])
    for second in range(25):
        now[0] = 100.0 + second
        inside.at(second * 40)
    said = [json.loads(line.removeprefix("@progress ")) for line in capsys.readouterr().out.splitlines()]
    assert [(line["done"], line["total"], line["text"]) for line in said] == [
        (400, 1000, "a.warc.gz"),
        (800, 1000, "a.warc.gz"),
    ]
    assert all(line["inside"] for line in said)
