"""Guarantees of `decontaminate`: planted evaluation texts are cut, audited, and nothing else is touched."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from data_curation.artifact import Artifact, Part
from data_curation.counts import Counts
from data_curation.decontaminate import DecontaminateConfig, decontaminate
from data_curation.files import File, sha256_file
from data_curation.settings import InputError
from data_curation.sources.listing import resolve
from data_curation.sources.source import Source
from tests.data_curation.places import artifact, documents, place, rows
from tests.data_curation.prose import paragraphs, sentence, text

DIALOGUES = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("kind", pa.string()),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("task", pa.string()),
    ]
)


def dialogues(home: Path, dev: list[str], test: list[tuple[str, str]]) -> Artifact:
    """Dialogues whose dev split asks some questions and whose test split has (question, answer) pairs."""
    parts: dict[str, Part] = {}
    for part, pairs in {"dev": [(question, "42") for question in dev], "test": test}.items():
        made: list[dict[str, Any]] = []
        for number, (question, answer) in enumerate(pairs):
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            made.append({"id": str(number), "source": "quiz", "kind": "chat", "messages": messages, "task": ""})
        path = home / part / "00000.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(made, DIALOGUES), path)
        parts[part] = Part((File(path.name, path.stat().st_size, sha256_file(str(path)), len(made)),))
    return Artifact("dialogues", str(home), parts)


def run(
    tmp_path: Path, texts: list[str], held_out: Artifact, listed: list[Artifact] | None = None, **settings: Any
) -> tuple[Artifact, Counts]:
    """Decontaminate one file of texts."""
    given = documents(tmp_path / "given", [[{"id": str(number), "text": one} for number, one in enumerate(texts)]])
    where = place(tmp_path / "home", tmp_path / "scratch")
    counts = decontaminate(DecontaminateConfig(**settings), given, held_out, where, listed)
    return artifact(where, "decontaminate"), counts


def test_planted_texts_are_cut(tmp_path: Path) -> None:
    """Paragraphs that hold a question or an answer, in other case and punctuation, go; all other bytes stay."""
    question, answer = sentence(900_001), sentence(900_002)
    first, second = paragraphs(1), paragraphs(2)
    first[2] = f"{first[2]} {question.upper().replace(',', ' --')}"
    second[4] = f"Somebody wrote:\n{answer} {second[4]}"
    texts = ["\n\n".join(first), "\n\n".join(second), text(3)]
    made, counts = run(tmp_path, texts, dialogues(tmp_path / "dia", [question], [("Why?", answer)]))
    expected = ["\n\n".join(first[:2] + first[3:]), "\n\n".join(second[:4]), text(3)]
    assert [row["text"] for row in rows(made)] == expected
    audit = [(row["id"], row["set"], row["item"], row["action"]) for row in rows(made, "audit")]
    assert audit == [("0", "dialogues-dev-quiz", "0/0", "cut"), ("1", "dialogues-test-quiz", "0/1", "cut")]
    assert rows(made, "audit")[1]["span"] == answer.rstrip(".")
    assert [bool(row["scores"]) for row in rows(made, "decisions")] == [True, True, False]
    assert counts.metrics["documents_cut"]["value"] == 2
    assert counts.made["documents"] == 3


def test_clean_documents_keep_their_bytes(tmp_path: Path) -> None:
    """Where nothing is found, the file of documents is the same, byte for byte."""
    given = documents(tmp_path / "same", [[{"id": str(number), "text": text(number)} for number in range(5)]])
    where = place(tmp_path / "home", tmp_path / "scratch")
    decontaminate(DecontaminateConfig(), given, dialogues(tmp_path / "dia", [sentence(-1)], []), where)
    assert artifact(where).part("documents").digest == given.part("documents").digest


def test_mostly_contaminated_documents_are_dropped(tmp_path: Path) -> None:
    """A document of which less than half would be left goes as a whole, and the reason is counted."""
    held_out = dialogues(tmp_path / "dia", [sentence(5), sentence(6), sentence(7)], [])
    made, counts = run(tmp_path, ["\n\n".join(sentence(number) for number in range(3, 8)), text(3)], held_out)
    assert [row["id"] for row in rows(made)] == ["1"]
    assert [(row["reason"], row["documents"]) for row in counts.funnel] == [("evaluation-text", 1)]
    assert {row["action"] for row in rows(made, "audit")} == {"drop"}


def test_documents_can_be_dropped_instead(tmp_path: Path) -> None:
    """With action `drop` one find is enough."""
    held_out = dialogues(tmp_path / "dia", [paragraphs(1)[0]], [])
    made, _ = run(tmp_path, [text(1), text(2)], held_out, action="drop")
    assert [row["id"] for row in rows(made)] == ["1"]


def test_short_texts_are_matched_whole_if_rare(tmp_path: Path) -> None:
    """A short question is cut where it stands whole; one in many documents is a phrase, and only audited."""
    rare, phrase = "How many moons has the planet Quox?", "Click here to read the next page"
    texts = [f"{text(number)}\n\n{phrase} now." for number in range(12)]
    texts.append(f"{text(20)}\n\n{rare}\n\nHow many moons has the planet, you ask?")
    made, _ = run(tmp_path, texts, dialogues(tmp_path / "dia", [rare, phrase], []))
    after = [row["text"] for row in rows(made)]
    assert after[:12] == texts[:12]
    assert after[12] == f"{text(20)}\n\nHow many moons has the planet, you ask?"
    actions = [(row["item"], row["action"]) for row in rows(made, "audit")]
    assert actions == [("1/0", "common")] * 12 + [("0/0", "cut")]
    assert made.read_json("audit", "sets.json")["common_phrases"] == ["click here to read the next page"]


def test_texts_too_short_to_find_are_counted(tmp_path: Path) -> None:
    """Answers of a word or two cannot be looked for: their number is said."""
    held_out = dialogues(tmp_path / "dia", [sentence(1), "Name it."], [])
    made, counts = run(tmp_path, [text(1)], held_out)
    assert made.read_json("audit", "sets.json")["sets"]["dialogues-dev-quiz"]["too_short"] == 3
    assert counts.warnings == ["3 of 4 evaluation texts are too short to look for"]


def test_evaluation_files_are_looked_for(tmp_path: Path) -> None:
    """Texts of configured evaluation files are found under their source's name."""
    (tmp_path / "quiz").mkdir()
    lines = [json.dumps({"text": paragraphs(1)[number]}) for number in (0, 3)]
    (tmp_path / "quiz" / "a.jsonl").write_text("\n".join(lines))
    source = Source(name="bench", kind="jsonl", path=str(tmp_path / "quiz"))
    listed, _ = resolve(source, tmp_path / "sources")
    nothing = dialogues(tmp_path / "dia", [], [])
    made, _ = run(tmp_path, [text(1)], nothing, [listed], evaluations=[source])
    assert rows(made)[0]["text"] == "\n\n".join(paragraphs(1)[number] for number in (1, 2, 4))
    assert {row["item"] for row in rows(made, "audit")} == {"a.jsonl#0", "a.jsonl#1"}


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    """When every document is dropped, the error says so."""
    held_out = dialogues(tmp_path / "dia", [text(1)], [])
    with pytest.raises(InputError, match="none of 1 documents is left; dropped by decontaminate evaluation-text 1"):
        run(tmp_path, [text(1)], held_out)


def test_lengths_must_fit() -> None:
    """Short texts longer than an n-gram make no sense."""
    with pytest.raises(ValidationError, match=r"decontaminate\.short_words is 20, above decontaminate\.ngram \(13\)"):
        DecontaminateConfig(short_words=20)
