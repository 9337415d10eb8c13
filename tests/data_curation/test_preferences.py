"""Preference records: every known shape gives one prompt with two replies, every fault is named and counted."""

from pathlib import Path
from typing import Any

import pytest

from tests.data_curation.chats import ALL_TRAIN, chat, make, rows

GOOD = {"prompt": "fine", "chosen": "yes", "rejected": "no"}
HUGE = [{"response": "A", "overall_score": 10**400}, {"response": "B", "overall_score": 1}]


def sides(chosen: list[str], rejected: list[str]) -> dict[str, Any]:
    """A record of two whole conversations."""
    return {"chosen": chat(*chosen)["messages"], "rejected": chat(*rejected)["messages"]}


def rated(*scores: Any, **more: Any) -> dict[str, Any]:
    """A record of replies A, B, ... to Q with their ratings, as UltraFeedback's authors publish it."""
    replies = [
        {"model": "m", "response": chr(65 + number), "fine-grained_score": score, "overall_score": 10 - number,
         "custom_system_prompt": "Be honest.", "annotations": {"honesty": {"Rating": "5"}}, "critique": "good"}
        for number, score in enumerate(scores)
    ]  # fmt: skip
    return {"source": "sharegpt", "instruction": "Q", "models": ["m"], "completions": replies, **more}


def hh(*turns: str) -> str:
    """A transcript as HH writes it."""
    names = ("Human", "Assistant") * len(turns)
    return "".join(f"\n\n{name}: {text}" for name, text in zip(names, turns, strict=False))


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
        {"prompt": chat("Q")["messages"], "chosen": chat("Q", "A")["messages"][1:], "rejected": "B"},
        {"prompt": "Q", "chosen": chat("Q", "A")["messages"][1:], "rejected": chat("Q", "B")["messages"][1:]},
        {"prompt": "Q", "prompt_id": "x", "messages": chat("Q", "A")["messages"], "score_chosen": 8.0,
         "score_rejected": 5.0, **sides(["Q", "A"], ["Q", "B"])},
        sides(["Q", "A"], ["Q", "B"]),
        {"chosen": hh("Q", "A"), "rejected": hh("Q", "B")},
        rated(4.5, 2.25),
        {"system": "", "question": "Q", "chosen": "A", "rejected": "B"},
        {"prompt": None, "question": "Q", "chosen": chat("Q", "A")["messages"][1:], "rejected": "B"},
        {"prompt": "Q", "chosen": "A", "rejected": "B", "messages": None, "tools": "[]"},
    ],
    ids=["strings", "mixed", "replies", "UltraFeedback binarised", "Tulu 3", "HH", "UltraFeedback", "Orca",
         "Orca's replies", "nulls"],
)  # fmt: skip
def test_every_known_shape_gives_the_same_sides(tmp_path: Path, record: dict[str, Any]) -> None:
    """The prompt, the chosen and the rejected reply come out the same, in the part of the preference records alone."""
    parts, counts = make(tmp_path, [record, chat("other", "text")], **ALL_TRAIN)
    (row,) = rows(tmp_path, "train-preferences")
    assert (row["messages"], row["rejected"], row["source"]) == (chat("Q", "A")["messages"], "B", "talk")
    assert [one["messages"][0]["content"] for one in rows(tmp_path, "train")] == ["other"]
    assert (counts.made["train preferences"], counts.made["train conversations"]) == (1, 1)
    assert parts["test-preferences"].files[0].rows == 0


def test_turns_before_the_reply_and_system_prompts_stay(tmp_path: Path) -> None:
    """Transcripts of several turns keep them; SmolTalk2's system prompt comes first on both sides."""
    system = {"chat_template_kwargs": {"custom_instructions": "Be brief.", "enable_thinking": False}}
    lines = [
        {"chosen": hh("Hello there", "Hi", "Why?", "So"), "rejected": hh("Hello there", "Hi", "Why?", "No\n\nidea")},
        {**sides(["Q", "A"], ["Q", "B"]), **system},
        {**chat("R", "C"), **system},
        {"question": "S", "chosen": "D", "rejected": "E", "system": "Be brief."},
    ]
    make(tmp_path, lines, **ALL_TRAIN)
    found = {row["rejected"]: row["messages"] for row in rows(tmp_path, "train-preferences")}
    assert found["No\n\nidea"] == chat("Hello there", "Hi", "Why?", "So")["messages"]
    first = {"role": "system", "content": "Be brief."}
    assert found["B"] == [first, *chat("Q", "A")["messages"]]
    assert found["E"] == [first, *chat("S", "D")["messages"]]
    assert rows(tmp_path, "train")[0]["messages"] == [first, *chat("R", "C")["messages"]]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"question": "Q", "chosen": "A", "rejected": None}, "unknown format"),
        ({"prompt": "Q", "chosen": "A  b", "rejected": " A b\n"}, "identical sides"),
        (sides(["Q", "A"], ["Q", "A"]), "identical sides"),
        (sides(["Q", "A"], ["R", "B"]), "sides answer different prompts"),
        (sides(["Q", "A", "R", "C"], ["Q", "B"]), "sides answer different prompts"),
        ({"prompt": "Q", "chosen": "A", "rejected": " "}, "empty turn"),
        ({"prompt": "", "chosen": "A", "rejected": "B"}, "empty turn"),
        ({"prompt": "Q", "chosen": "A", "rejected": None}, "unknown format"),
        ({"chosen": "A", "rejected": "B"}, "unknown format"),
        ({"chosen": hh("Q", "A", "R"), "rejected": hh("Q", "B", "R")}, "roles do not alternate from user to assistant"),
        ({"chosen": hh("Q"), "rejected": hh("R")}, "no assistant turn"),
        ({"prompt": "Q", "chosen": "A", "rejected": "B" * 200}, "longer than max_bytes"),
        ({**GOOD, "score_chosen": 1.0, "score_rejected": 2}, "chosen side has the lower score"),
        (rated(3.0, 3.0, None), "no reply is rated above another"),
        (rated(), "no reply is rated above another"),
        ({"instruction": "Q", "completions": [7, {"response": "A"}]}, "no reply is rated above another"),
        ({"prompt": 1, "chosen": "A", "rejected": "B"}, "content is not text"),
        ({"instruction": "Q", "completions": HUGE}, "no reply is rated above another"),
        (rated(2.0, 1.0, instruction="\ud800"), "content is not valid Unicode"),
    ],
)
def test_each_fault_of_a_preference_has_its_name(tmp_path: Path, record: dict[str, Any], reason: str) -> None:
    """One planted fault beside one good record: counted once under its reason; the good one stays."""
    _, counts = make(tmp_path, [record, GOOD, chat("x", "y")], max_bytes=100, **ALL_TRAIN)
    assert [(row["step"], row["reason"], row["documents"]) for row in counts.funnel] == [("validate", reason, 1)]
    assert [row["rejected"] for row in rows(tmp_path, "train-preferences")] == ["no"]


def test_scores_become_a_margin(tmp_path: Path) -> None:
    """The difference of two finite scores is kept; without both there is none."""
    scores = [(8.5, 3), (2, 2.0), (None, 1.0), (float("nan"), 1.0), (10**400, 1), (1, -(10**400)), (1e308, -1e308)]
    lines = [
        {"prompt": f"Q{n}", "chosen": "A", "rejected": "B", "score_chosen": one, "score_rejected": other}
        for n, (one, other) in enumerate(scores)
    ]
    make(tmp_path, [*lines, chat("x", "y")], **ALL_TRAIN)
    found = {row["messages"][0]["content"]: row["margin"] for row in rows(tmp_path, "train-preferences")}
    assert found == {"Q0": 5.5, "Q1": 0.0} | {f"Q{number}": None for number in range(2, 7)}


def test_the_best_rated_reply_is_chosen_and_a_worse_one_rejected(tmp_path: Path) -> None:
    """Of rated replies: by their aspects, else by their overall score; the rejected ones are not always the worst."""
    lines: list[Any] = [rated(1.0, 4.5, 4.5, 2.0, instruction=f"word{number}") for number in range(40)]
    lines += [rated(None, None, None, instruction="overall"), chat("x", "y")]
    make(tmp_path, lines, **ALL_TRAIN)
    found = rows(tmp_path, "train-preferences")
    overall = next(row for row in found if row["messages"][0]["content"] == "overall")
    assert overall["messages"][-1]["content"] == "A" and (overall["rejected"], overall["margin"]) in {
        ("B", 1),
        ("C", 2),
    }
    pairs = [(row["messages"][-1]["content"], row["rejected"], row["margin"]) for row in found if row is not overall]
    assert len(pairs) == 40 and set(pairs) == {("B", "A", 3.5), ("B", "D", 2.5)}


def test_preferences_and_chats_of_one_prompt_share_its_split(tmp_path: Path) -> None:
    """However a prompt is written, its conversations and its preference records are held out together."""
    lines: list[Any] = []
    for number in range(120):
        lines += [
            chat(f"What is word{number}?", f"a{number}"),
            {"prompt": f"what is  WORD{number}", "chosen": f"a{number}", "rejected": f"b{number}"},
        ]
    make(tmp_path, lines, dev_share=0.2, test_share=0.2)
    for split in ("train", "dev", "test"):
        chats = {row["messages"][1]["content"] for row in rows(tmp_path, split)}
        given = {row["messages"][1]["content"] for row in rows(tmp_path, f"{split}-preferences")}
        assert chats == given
        assert len(chats) > 10


def test_repeated_preferences_are_dropped(tmp_path: Path) -> None:
    """Exact and nearly equal records (both replies count) leave one; another rejected reply is no repeat."""
    long = " ".join(f"word{number}" for number in range(60))
    lines = [
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
        {"prompt": "Q", "chosen": "A", "rejected": "C"},
        {"prompt": "long", "chosen": long, "rejected": "short"},
        {"prompt": "long", "chosen": f"{long} more", "rejected": "short"},
        chat("x", "y"),
    ]
    _, counts = make(tmp_path, lines, **ALL_TRAIN)
    assert {(row["reason"], row["documents"]) for row in counts.funnel} == {("exact repeat", 1), ("near-duplicate", 1)}
    assert sorted(row["rejected"] for row in rows(tmp_path, "train-preferences")) == ["B", "C", "short"]
