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
    """Where nothing is found, or there is nothing to look for, the file of documents is the same, byte for byte."""
    given = documents(tmp_path / "same", [[{"id": str(number), "text": text(number)} for number in range(5)]])
    where = place(tmp_path / "home", tmp_path / "scratch")
    decontaminate(DecontaminateConfig(), given, dialogues(tmp_path / "dia", [sentence(-1)], []), where)
    assert artifact(where).part("documents").digest == given.part("documents").digest
    nowhere = place(tmp_path / "nothing", tmp_path / "scratch")
    decontaminate(DecontaminateConfig(), given, dialogues(tmp_path / "none", [], []), nowhere)
    assert artifact(nowhere).part("documents").digest == given.part("documents").digest


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
    assert made.read_json("audit", "sets.json")["common_phrases"] == [{"text": phrase, "documents": 12}]


def test_texts_too_short_to_find_are_counted(tmp_path: Path) -> None:
    """Answers of a word or two cannot be looked for: their number is said."""
    held_out = dialogues(tmp_path / "dia", [sentence(1), "Name it."], [])
    made, counts = run(tmp_path, [text(1)], held_out)
    assert made.read_json("audit", "sets.json")["sets"]["dialogues-dev-quiz"]["too_short"] == 2
    assert counts.warnings == ["2 of 4 evaluation texts are too short to look for"]


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


def edited(sentence: str) -> str:
    """The sentence with its third word swapped, one word put in behind the ninth, and other punctuation."""
    words = sentence.replace(",", ";").split()
    return " ".join([*words[:2], "unlikely", *words[3:9], "indeed", *words[9:]])


def test_lightly_edited_texts_are_cut(tmp_path: Path) -> None:
    """A question with a word swapped and one put in goes, its share of words is audited; half of one stays."""
    question = sentence(900_001)
    half = " ".join(question.split()[:9])
    texts = [f"{text(1)}\n\n{edited(question)}", f"{text(2)}\n\n{half} and so on", text(3)]
    made, counts = run(tmp_path, texts, dialogues(tmp_path / "dia", [question], []))
    assert [row["text"] for row in rows(made)] == [text(1), texts[1], text(3)]
    (audit,) = rows(made, "audit")
    total = len(question.split())
    assert (audit["kind"], audit["similarity"]) == ("near", pytest.approx((total - 1) / total))
    assert audit["span"] == edited(question).rstrip(".")
    assert audit["text"] == question
    assert counts.metrics["precision"] == {"value": 1.0, "n": 1, "standard_error": 0.0}


def test_near_1_leaves_edited_texts(tmp_path: Path) -> None:
    """Without near matching, an edited text without `ngram` words in a row stays."""
    question = sentence(900_001)
    texts = [f"{text(1)}\n\n{edited(question)}", f"{text(2)}\n\n{question}"]
    made, _ = run(tmp_path, texts, dialogues(tmp_path / "dia", [question], []), near=1)
    assert [row["text"] for row in rows(made)] == [texts[0], text(2)]


def test_licences_stay(tmp_path: Path) -> None:
    """A long text whole in many documents stays, as do runs of it that are in many; in few documents both go."""
    licence, passage = paragraphs(900)[0], f"{sentence(950_000)} {sentence(950_001)} {sentence(950_002)}"
    listed = passage.split()
    parts = [" ".join(listed[:-15]), " ".join(listed[15:])] * 4
    texts = [f"{text(number)}\n\n{licence}\n\n{part}" for number, part in enumerate(parts)]
    held_out = dialogues(tmp_path / "dia", [licence, passage], [])
    made, _ = run(tmp_path / "few", texts, held_out, common_texts=8, common_documents=8)
    assert [row["text"] for row in rows(made)] == [text(number) for number in range(8)]
    audit = {(row["item"], row["kind"], row["action"]) for row in rows(made, "audit")}
    assert audit == {("0/0", "whole", "cut"), ("1/0", "run", "cut")}
    made, counts = run(tmp_path / "many", texts, held_out, common_texts=7, common_documents=3)
    assert [row["text"] for row in rows(made)] == texts
    audit = {(row["item"], row["kind"], row["action"]) for row in rows(made, "audit")}
    assert audit == {("0/0", "whole", "common"), ("1/0", "common", "common")}
    assert made.read_json("audit", "sets.json")["common_phrases"] == [{"text": licence, "documents": 8}]
    assert counts.metrics["finds"]["value"] == 0
    assert made.read_json("audit", "sets.json")["sets"]["dialogues-dev-quiz"]["common"] == {"short": 0, "long": 1}
    assert any(one.startswith("dialogues-dev-quiz: 1 texts stand in too many") for one in counts.warnings)


def test_short_questions_are_found_with_their_answers(tmp_path: Path) -> None:
    """Where neither is long enough alone the two are looked for together, however they are introduced."""
    held_out = dialogues(tmp_path / "dia", [], [("Who painted Quoxville?", "Ann Zebrowski")])
    leaks = ["Q: Who painted Quoxville? Ann Zebrowski!", "Who painted Quoxville?\nAnswer: Ann Zebrowski"]
    others = ["Who painted Quoxville? Nobody knows.", "I met Ann Zebrowski in Quoxville."]
    texts = [f"{text(number)}\n\n{one}" for number, one in enumerate(leaks + others)]
    settings = {"short_words": 5, "anchor": 4}
    made, _ = run(tmp_path, texts, held_out, **settings)
    assert [row["text"] for row in rows(made)] == [text(0), text(1), *texts[2:]]
    assert {row["item"] for row in rows(made, "audit")} == {"0/0+1"}


def test_order_and_number_of_files_do_not_matter(bucket: str, tmp_path: Path) -> None:
    """Documents, audit and canaries are the same in one file or three, in any order, with two workers, on s3."""
    question = sentence(900_001)
    given = [{"id": f"{number:03}", "text": text(number)} for number in range(12)]
    given[5]["text"] += f"\n\n{edited(question)}"
    held_out = dialogues(tmp_path / "dia", [question], [])

    def outcome(home: Path | str, files: list[list[dict[str, str]]], workers: int) -> Any:
        where = place(home, tmp_path / "scratch", workers=workers)
        listed = documents(tmp_path / f"given{len(files)}", files)
        counts = decontaminate(DecontaminateConfig(), listed, held_out, where)
        made = artifact(where)
        tables = {part: sorted(rows(made, part), key=lambda row: row["id"]) for part in ("documents", "decisions")}
        return tables, made.read_json("audit", "sets.json"), counts.metrics

    one = outcome(tmp_path / "one", [given], 1)
    assert outcome(tmp_path / "three", [given[8:], given[:3], given[3:8]], 2) == one
    assert outcome(f"{bucket}/store", [given[6:], given[:6]], 1) == one
    assert one[2]["documents_cut"]["value"] == 1


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    """When every document is dropped, the error says so."""
    held_out = dialogues(tmp_path / "dia", [text(1)], [])
    with pytest.raises(InputError, match="none of 1 documents is left; dropped by decontaminate evaluation-text 1"):
        run(tmp_path, [text(1)], held_out)


def test_lengths_must_fit() -> None:
    """Short texts longer than an n-gram make no sense."""
    with pytest.raises(ValidationError, match=r"decontaminate\.short_words is 20, above decontaminate\.ngram \(13\)"):
        DecontaminateConfig(short_words=20)


def test_anchors_must_fit() -> None:
    """A text shorter than an anchor could never be found."""
    with pytest.raises(ValidationError, match=r"decontaminate\.anchor is 7, above decontaminate\.short_words \(6\)"):
        DecontaminateConfig(anchor=7)
