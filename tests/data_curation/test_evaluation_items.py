"""Guarantees of evaluation items: every text of a record is there by name, with its partner where it is short."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_curation.artifact import Artifact
from data_curation.decontaminate import DecontaminateConfig, ItemFields
from data_curation.documents import read_rows
from data_curation.evaluation_items import write_items
from data_curation.grams import words
from data_curation.settings import InputError
from data_curation.sources.listing import resolve
from data_curation.sources.source import Source
from tests.data_curation.places import place
from tests.data_curation.prose import page, sentence, text
from tests.data_curation.test_decontaminate import dialogues

LONG, OTHER = sentence(1), sentence(2)
ASKED = "Which of these towns is the largest one?"


def items(home: Path, records: list[dict[str, Any]], **config: Any) -> tuple[dict[str, str], dict[str, int]]:
    """Texts by name of one JSONL file of records, and their numbers."""
    (home / "quiz").mkdir()
    (home / "quiz" / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    found, numbers = read(home, Source(name="quiz", kind="jsonl", path=str(home / "quiz")), **config)
    return {name.removeprefix("a.jsonl#"): text for name, text in found.items()}, numbers


def read(home: Path, source: Source, **config: Any) -> tuple[dict[str, str], dict[str, int]]:
    """Texts by name of one source, and their numbers."""
    listed: list[Artifact] = [resolve(source, home / "sources")[0]]
    where = place(home / "home", home / "scratch")
    nothing = dialogues(home / "dia", [], [])
    with where.piece("items") as piece:
        write_items(DecontaminateConfig(evaluations=[source], **config), nothing, listed, piece)
    found = read_rows(str(home / "home" / "work" / "items" / "items.parquet"))
    named = {name: row["text"] for row in found for name in row["names"]}
    return named, piece.piece.note["sets"][source.name]


def test_questions_and_answers(tmp_path: Path) -> None:
    """Long texts stand alone, short ones with their partner; what is too short even so is counted."""
    records = [
        {"question": LONG, "answer": OTHER},
        {"question": LONG.upper(), "answer": "42"},
        {"question": "Who paid the tall baker?", "answer": "The sailor"},
        {"question": "Why?", "answer": "So."},
    ]
    found, numbers = items(tmp_path, records)
    assert found == {
        "0/question": LONG,
        "0/answer": OTHER,
        "2/question+answer": "Who paid the tall baker?\nThe sailor",
    }
    assert numbers == {"texts": 8, "too_short": 2}


@pytest.mark.parametrize(
    ("answer", "choices"),
    [
        (1, ["Quox", "Upper Trelawny", "Zill"]),
        ("B", ["Quox", "Upper Trelawny", "Zill"]),
        ("2", {"text": ["Quox", "Upper Trelawny", "Zill"], "label": ["1", "2", "3"]}),
        ("Upper Trelawny", ["Quox", "Upper Trelawny", "Zill"]),
    ],
)
def test_choices(tmp_path: Path, answer: Any, choices: Any) -> None:
    """The right choice is the answer, however it is named; all of them stand behind the question."""
    found, _ = items(tmp_path, [{"question": ASKED, "choices": choices, "answer": answer}])
    assert found == {
        "0/question": ASKED,
        "0/question+answer": f"{ASKED}\nUpper Trelawny",
        "0/question+choices": f"{ASKED}\nQuox\nUpper Trelawny\nZill",
    }


def test_fields_of_a_set(tmp_path: Path) -> None:
    """Other field names are given per source; answers in a list under `text`, as SQuAD has them, are read."""
    fields = ItemFields(text=["story"], question=["ask"], answer=["reply"])
    record = {"story": LONG, "ask": ASKED, "reply": {"text": ["Upper Trelawny"], "start": [3]}, "text": OTHER}
    found, _ = items(tmp_path, [record], set_fields={"quiz": fields})
    assert found == {"0/story": LONG, "0/ask": ASKED, "0/ask+reply": f"{ASKED}\nUpper Trelawny"}


def test_equal_texts_are_one_item_of_all_their_records(tmp_path: Path) -> None:
    """A passage that many questions share is looked for once."""
    items(tmp_path, [{"context": LONG, "question": ASKED}, {"context": LONG.upper(), "question": OTHER}])
    rows = list(read_rows(str(tmp_path / "home" / "work" / "items" / "items.parquet")))
    (shared,) = (row for row in rows if row["text"] == LONG)
    assert shared["records"] == ["quiz a.jsonl#0", "quiz a.jsonl#1"]
    assert len(rows) == 3


def test_long_texts_are_looked_for_in_shares(tmp_path: Path) -> None:
    """A passage of 700 words makes three texts of equal length that hold all of its words, each once."""
    listed = [f"word{number}" for number in range(700)]
    found, numbers = items(tmp_path, [{"text": ", ".join(listed)}])
    assert list(found) == ["0[0]", "0[1]", "0[2]"]
    assert [len(words(text)) for text in found.values()] == [233, 233, 234]
    assert [word for text in found.values() for word in words(text)] == listed
    assert numbers == {"texts": 1, "too_short": 0}


def test_parquet_and_pages(tmp_path: Path) -> None:
    """Records of Parquet files are read as those of JSONL are; of a page its main text counts."""
    (tmp_path / "quiz").mkdir()
    pq.write_table(pa.Table.from_pylist([{"question": LONG, "answer": OTHER}]), tmp_path / "quiz" / "a.parquet")
    found, _ = read(tmp_path, Source(name="quiz", kind="parquet", path=str(tmp_path / "quiz")))
    assert found == {"a.parquet#0/question": LONG, "a.parquet#0/answer": OTHER}
    (tmp_path / "exam").mkdir()
    (tmp_path / "exam" / "a.html").write_bytes(page(1, count=2))
    found, _ = read(tmp_path / "exam", Source(name="exam", kind="html", path=str(tmp_path / "exam")))
    assert words(text(1, count=2)) == words(found["a.html#0"])[-len(words(text(1, count=2))) :]


def test_a_record_without_texts_is_an_error(tmp_path: Path) -> None:
    """Fields that nobody named are an error that names them, not an empty set."""
    with pytest.raises(InputError, match=r"quiz: a\.jsonl: record 1 has none .* those of body, id in decon"):
        items(tmp_path, [{"text": LONG}, {"id": "1", "body": OTHER}])


def test_damaged_lines_are_an_error(tmp_path: Path) -> None:
    """A line that is no JSON object is named."""
    with pytest.raises(InputError, match=r"a\.jsonl: line 1 is no JSON object"):
        items(tmp_path, [["text"]])  # type: ignore[list-item]
