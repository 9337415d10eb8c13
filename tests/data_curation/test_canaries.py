"""Guarantees of canaries: they measure recall and false finds, and nothing of them is ever written."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from data_curation.artifact import Artifact
from data_curation.canaries import CANARIES, DECOYS, altered, plant
from data_curation.counts import Counts
from data_curation.decontaminate import DecontaminateConfig, decontaminate
from data_curation.grams import words
from data_curation.matching import common_subsequence
from tests.data_curation.places import artifact, documents, place
from tests.data_curation.prose import paragraphs, sentence, text
from tests.data_curation.test_decontaminate import dialogues


def made_up(number: int, length: int) -> str:
    """A text of words that stand nowhere else."""
    return " ".join(f"qx{number}w{place}" for place in range(length))


def measured(home: Path, held_out: Artifact, **config: Any) -> tuple[Artifact, Counts, dict[str, Any]]:
    """Decontaminate eight documents; the report beside."""
    files = [[{"id": f"{file}{row}", "text": text(10 * file + row)} for row in range(4)] for file in range(2)]
    where = place(home / "home", home / "scratch")
    counts = decontaminate(DecontaminateConfig(**config), documents(home / "given", files), held_out, where)
    made = artifact(where)
    return made, counts, made.read_json("audit", "sets.json")


def contents(home: Path) -> str:
    """Everything that lies in published parts and records, Parquet as text."""
    found: list[str] = []
    for path in home.rglob("*"):
        if path.is_file() and "work" not in path.relative_to(home).parts:
            found.append(str(pq.read_table(path).to_pylist()) if path.suffix == ".parquet" else path.read_text())
    return "\n".join(found)


def test_planted_texts_reach_no_output(tmp_path: Path) -> None:
    """Canaries of every kind are planted and found, and no word of theirs stands in any part, record or count."""
    held_out = dialogues(tmp_path / "dia", [made_up(number, 20 + number) for number in range(12)], [])
    _, counts, report = measured(tmp_path, held_out, canaries=120)
    (one,) = report["sets"].values()
    assert {kind: one["recall"][kind]["n"] for kind in CANARIES} == dict.fromkeys(CANARIES, 20)
    assert one["recall"]["all"] == {"value": 1.0, "n": 80, "standard_error": 0.0}
    assert one["false_finds"]["all"] == {"value": 0.0, "n": 40, "standard_error": 0.0}
    published = contents(tmp_path / "home")
    assert text(0)[:50] in published
    assert "qx" not in published
    assert "qx" not in json.dumps(vars(counts))
    assert counts.metrics["canary_recall"]["value"] == 1.0


def test_what_is_planted_does_not_change_the_documents(tmp_path: Path) -> None:
    """With or without canaries every part but the report is the same, byte for byte."""
    held_out = dialogues(tmp_path / "dia", [paragraphs(3)[2]], [])
    with_them, _, _ = measured(tmp_path / "with", held_out)
    without, _, report = measured(tmp_path / "without", held_out, canaries=0)
    for part in ("documents", "decisions"):
        assert with_them.part(part).digest == without.part(part).digest
    assert report["recall"]["all"] == {"value": None, "n": 0, "standard_error": None}


def test_low_recall_is_warned_of(tmp_path: Path) -> None:
    """Where near matching is off, edited canaries are missed: their recall says so, and the set is named."""
    held_out = dialogues(tmp_path / "dia", [made_up(number, 14) for number in range(12)], [])
    _, counts, report = measured(tmp_path, held_out, canaries=120, near=1)
    recall = report["sets"]["dialogues-dev-quiz"]["recall"]
    assert [recall[kind]["value"] for kind in ("verbatim", "recased", "split")] == [1, 1, 1]
    assert recall["edited"]["value"] < 0.5
    (warning,) = (one for one in counts.warnings if one.startswith("dialogues-dev-quiz: "))
    assert f"{recall['all']['value']:.2f} of 80 planted canaries were found" in warning


def test_common_phrases_count_as_missed(tmp_path: Path) -> None:
    """A text that would stay in the documents is not found, however well it is seen."""
    phrase = sentence(0)  # stands in the first document
    _, _, report = measured(tmp_path, dialogues(tmp_path / "dia", [phrase], []), canaries=12, common_texts=0)
    assert report["recall"]["all"]["value"] == 0


def test_texts_of_other_records_are_false_finds(tmp_path: Path) -> None:
    """Two records that share most of their words are found for each other: the decoys show it."""
    shared = made_up(1, 20)
    held_out = dialogues(tmp_path / "dia", [f"{shared} one", f"{shared} two"], [])
    _, counts, report = measured(tmp_path, held_out, canaries=24)
    assert report["false_finds"]["other"]["value"] == 1.0
    assert report["false_finds"]["reordered"]["value"] == 0.0
    assert counts.metrics["decoys_found"]["value"] == pytest.approx(0.5)


def test_kinds() -> None:
    """Edited texts keep nine words in ten in order; re-cased and split ones all; reordered ones few."""
    question = made_up(1, 40)
    listed = words(question)
    for seed in range(20):
        kept = {
            kind: common_subsequence(words(altered(kind, question, ["and"], random.Random(seed))), listed)
            for kind in CANARIES + DECOYS
        }
        assert 36 <= kept.pop("edited") <= 40
        assert kept == {"verbatim": 40, "recased": 40, "split": 40, "other": 40, "reordered": 3}


def test_planting() -> None:
    """The copy is the text with one more paragraph, at the place that is given."""
    for seed in range(20):
        copy, start, end = plant(text(1), "planted\nhere", random.Random(seed))
        assert copy[start:end] == "planted\nhere"
        assert [one for one in copy.split("\n\n") if one != "planted\nhere"] == text(1).split("\n\n")
