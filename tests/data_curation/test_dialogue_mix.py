"""Mixing chat sources: relations by weight, passes, fractions; the same conversations every time."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from data_curation.dialogues import DialoguesConfig
from tests.data_curation.chats import ALL_TRAIN, NO_TASKS, chat, prepare, rows, source


def config(tmp_path: Path, weights: dict[str, float | None], **settings: Any) -> DialoguesConfig:
    """Sources of 300 conversations of equal length each, with these weights."""
    sources = [
        source(tmp_path, name, [chat(f"{name} {n:04d}", "x" * 50) for n in range(300)], weight=weight)
        for name, weight in weights.items()
    ]
    return DialoguesConfig.model_validate({"sources": sources, "tasks": NO_TASKS, "near": None, **settings})


def numbers(tmp_path: Path, part: str = "train", name: str = "run") -> dict[str, int]:
    """Rows of each source in one part."""
    found = [row["source"] for row in rows(tmp_path, part, name)]
    return {name: found.count(name) for name in sorted(set(found))}


def test_weights_give_the_relations_of_bytes_and_leave_the_least_out(tmp_path: Path) -> None:
    """At weights 3 : 1 : 1 the first source is taken in full, a third of each other; the rest is counted."""
    _, counts = prepare(tmp_path, config(tmp_path, {"a": 3, "b": 1, "c": 1}, **ALL_TRAIN))
    assert numbers(tmp_path) == {"a": 300, "b": 100, "c": 100}
    left = {(row["step"], row["reason"]): row["documents"] for row in counts.funnel}
    assert left == {("mix", "over the weight of b"): 200, ("mix", "over the weight of c"): 200}
    assert counts.metrics["passes over a"]["value"] == pytest.approx(1)
    assert counts.metrics["passes over b"]["value"] == pytest.approx(1 / 3)


def test_more_passes_repeat_in_train_alone(tmp_path: Path) -> None:
    """Up to 2.5 passes over the scarce source: rows come two or three times in train, held-out ones once."""
    given = config(tmp_path, {"a": 5, "b": 1}, max_passes=2.5, dev_share=0.2, test_share=0.2)
    _, counts = prepare(tmp_path, given)
    assert counts.metrics["passes over a"]["value"] == pytest.approx(2.5)
    assert counts.metrics["passes over b"]["value"] == pytest.approx(0.5)
    ids = [row["id"] for row in rows(tmp_path, "train") if row["source"] == "a"]
    assert {ids.count(one) for one in set(ids)} == {2, 3}
    for split in ("dev", "test"):
        held = [row["id"] for row in rows(tmp_path, split)]
        assert len(held) == len(set(held)) > 0
    everything = sum(numbers(tmp_path, split)["b"] for split in ("train", "dev", "test"))
    assert everything == 150


def test_a_smaller_weight_or_fraction_takes_some_of_the_same(tmp_path: Path) -> None:
    """Samples lie within each other and follow from the records alone; two runs agree byte for byte."""
    first, _ = prepare(tmp_path, config(tmp_path, {"a": 2, "b": 1}, **ALL_TRAIN), "first")
    again, _ = prepare(tmp_path, config(tmp_path, {"a": 2, "b": 1}, **ALL_TRAIN), "again")
    prepare(tmp_path, config(tmp_path, {"a": 4, "b": 1}, **ALL_TRAIN), "less")
    assert first["train"].digest == again["train"].digest
    more, less = ({row["id"] for row in rows(tmp_path, "train", name)} for name in ("first", "less"))
    assert less < more
    given = config(tmp_path, {"a": None})
    for fraction in (0.5, 0.2):
        part = given.sources[0].model_copy(update={"fraction": fraction})
        _, counts = prepare(tmp_path, given.model_copy(update={"sources": [part], **ALL_TRAIN}), f"share{fraction}")
        assert counts.funnel[0]["reason"] == "outside the fraction of a"
    half, fifth = ({row["id"] for row in rows(tmp_path, "train", f"share{share}")} for share in (0.5, 0.2))
    assert fifth < half
    assert (120 < len(half) < 180) and (35 < len(fifth) < 90)


def test_preference_records_are_mixed_among_themselves(tmp_path: Path) -> None:
    """A source of preferences does not take from the conversations, whatever its weight."""
    given = config(tmp_path, {"a": 1, "b": 1}, **ALL_TRAIN)
    pairs = source(tmp_path, "p", [{"prompt": f"p{n}", "chosen": "A", "rejected": "B"} for n in range(20)], weight=9)
    prepare(tmp_path, given.model_copy(update={"sources": [*given.sources, pairs]}))
    assert numbers(tmp_path) == {"a": 300, "b": 300}
    assert numbers(tmp_path, "train-preferences") == {"p": 20}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([{"weight": 1}, {}], r"sources\[1\].weight is None: give all sources one, or none"),
        ([{}, {"name": "a"}], r"sources\[1\].name is 'a', as of another: rename one"),
        ([{"kind": "warc"}], r"sources\[0\].kind is 'warc': use one of jsonl, parquet, hub, chat-packages"),
    ],
)
def test_sources_that_do_not_fit_are_refused(changes: list[dict[str, Any]], words: str) -> None:
    """Weights for some, names twice and kinds without conversations are configuration errors before anything runs."""
    sources = [{"name": "ab"[n], "kind": "jsonl", "path": "x"} | change for n, change in enumerate(changes)]
    with pytest.raises(ValidationError, match=words):
        DialoguesConfig.model_validate({"sources": sources})
