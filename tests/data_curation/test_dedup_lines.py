"""Guarantees of repeated lines: counted over all files, cut out of all documents but one."""

from pathlib import Path

import pytest

from data_curation import dedup_lines
from data_curation.dedup import DedupConfig
from data_curation.dedup_lines import line_hashes
from tests.data_curation.places import rows
from tests.data_curation.prose import text
from tests.data_curation.test_dedup import Rows, deduplicated, dropped, kept

NOTICE = "This site uses cookies to serve you better."


def test_repeated_lines_stay_in_one_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line in more documents than allowed stays with the smallest id; rarer and shorter lines stay everywhere."""
    some: Rows = [{"id": f"{number}", "text": f"{NOTICE}\n\n{text(number)}\n\nHome"} for number in range(5)]
    some[3]["text"] = f"{text(3)}\n{NOTICE.upper()}\n{NOTICE}\n\nHome"
    some += [
        {"id": f"p{number}", "text": f"{text(10 + number)}\n\nA line that two of them share."} for number in (0, 1)
    ]
    made, counts = deduplicated(tmp_path, [some[1::2], some[::2]], config=DedupConfig(repeated_lines=2))
    texts = {row["id"][:4]: row["text"] for row in rows(made)}
    assert texts["3000"] == some[0]["text"]
    assert [texts[f"3{number}00"] for number in range(1, 5)] == [f"{text(number)}\n\nHome" for number in range(1, 5)]
    assert all("two of them share" in texts[f"703{number}"] for number in (0, 1))
    size = sum(len(row["text"]) for row in some)
    left = sum(len(one) for one in texts.values())
    assert counts.metrics["repeated_lines_share"]["value"] == pytest.approx(1 - left / size)
    assert counts.metrics["repeated_lines_documents"]["value"] == 4
    assert counts.made["bytes"] == left
    monkeypatch.setattr(dedup_lines, "AT_ONCE", 3)
    ranges, _ = deduplicated(tmp_path, [some[1::2], some[::2]], "ranges", config=DedupConfig(repeated_lines=2))
    assert ranges.part("documents").digest == made.part("documents").digest


def test_a_document_of_repeated_lines_goes(tmp_path: Path) -> None:
    """What has nothing of its own is dropped, leaves the index too, and its decision shows the text."""
    lines = [f"{number} is the number of this line here." for number in range(9)]
    some: Rows = [
        {"id": "a", "text": "\n".join(lines[:5])},
        {"id": "b", "text": "\n".join(lines[4:])},
        {"id": "c", "text": "\n".join([lines[0], lines[8]])},
    ]
    made, counts = deduplicated(tmp_path, [some], config=DedupConfig(repeated_lines=1))
    assert kept(made) == ["a", "b"]
    assert dropped(made)["c"][:2] == ("lines", "repeated-lines")
    assert [row["passage"] for row in rows(made, "decisions") if row["reason"]] == [some[2]["text"]]
    assert counts.metrics["index_documents"]["value"] == 2


def test_nothing_is_cut_unless_asked(tmp_path: Path) -> None:
    """By default every line stays."""
    some: Rows = [{"id": f"{number}", "text": f"{NOTICE}\n\n{text(number)}"} for number in range(5)]
    made, _ = deduplicated(tmp_path, [some])
    assert [row["text"] for row in rows(made)] == [row["text"] for row in some]


def test_lines_count_by_words_in_any_script() -> None:
    """Short lines have no hash; case and space do not matter; without spaces each sign is a word."""
    lines = ["one two three", "One two, three four", " one TWO,  three four ", "\u6771\u4eac\u6771\u4eac"]
    short, long, same, east = line_hashes("\n".join(lines), 4)
    assert short == 0
    assert long == same != 0
    assert east not in (0, long)
