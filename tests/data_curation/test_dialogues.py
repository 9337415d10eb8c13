"""Dialogues: every format is read, every drop is named and counted, no held-out prompt is in train."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_curation.dialogue_rows import Dialogue
from data_curation.dialogues import DialoguesConfig, Tasks
from data_curation.settings import InputError
from data_curation.sources.source import Source
from tests.data_curation.chats import NO_TASKS, chat, make, prepare, rows


def parts(*texts: str) -> list[dict[str, Any]]:
    """Content as OpenAI's list of parts."""
    return [{"type": "text", "text": text} for text in texts]


def test_every_known_format_gives_the_same_conversation(tmp_path: Path) -> None:
    """OpenAI messages, ShareGPT, Alpaca with and without input, question/answer, both prompt/completion forms agree."""
    turns = chat("Q", "A")["messages"]
    lines: list[dict[str, Any]] = [
        {"messages": turns},
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
        {"instruction": "Q", "input": "", "output": "A"},
        {"prompt": "Q", "completion": "A"},
        {"prompt": turns[:1], "completion": turns[1:]},
        {"question": "Q", "answer": "A"},
        {"conversations": turns},
        {"conversations": [turn | {"from": None, "value": None} for turn in turns]},
        {"messages": [{"role": "user", "content": parts("Q")}, {"role": "assistant", "content": parts("", "A")}]},
        {"messages": turns, "chosen": None, "rejected": None},
        {"prompt": parts("Q"), "completion": parts("A")},
        {"instruction": parts("Q"), "input": [], "output": "A"},
        {"instruction": "Sum up", "input": "this", "output": "B", "system": "S"},
    ]
    _, counts = make(tmp_path, lines, dev_share=0.0, test_share=0.0)
    found = sorted(json.dumps(row["messages"]) for row in rows(tmp_path, "train"))
    system = {"role": "system", "content": "S"}
    assert [json.loads(one) for one in found] == [[system, *chat("Sum up\n\nthis", "B")["messages"]], turns]
    assert counts.funnel == [{"step": "dedup", "reason": "exact repeat", "documents": 11, "bytes": 22}]


@pytest.mark.parametrize(
    "extra",
    [
        *({"system": nothing} for nothing in ("", None, " \n", [])),
        *({"tools": nothing} for nothing in ("[]", "null", " [] ", "", "{}", [], None)),
        {"chat_template_kwargs": {"custom_instructions": "", "python_tools": "[]", "xml_tools": None}},
    ],
)
def test_fields_that_say_nothing_drop_nothing(tmp_path: Path, extra: dict[str, Any]) -> None:
    """Empty system prompts and lists of tools, beside the conversation in any form, are as if they were not there."""
    forms: list[dict[str, Any]] = [
        chat("Q", "A"),
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
        {"instruction": "Q", "output": "A"},
        {"prompt": "Q", "completion": "A"},
    ]
    _, counts = make(tmp_path, [form | extra for form in forms], dev_share=0.0, test_share=0.0)
    assert [(row["reason"], row["documents"]) for row in counts.funnel] == [("exact repeat", 3)]
    assert [row["messages"] for row in rows(tmp_path, "train")] == [chat("Q", "A")["messages"]]


@pytest.mark.parametrize("content", ["", None, " ", [], parts(" ")])
@pytest.mark.parametrize("role", ["system", "developer"])
def test_an_empty_system_message_is_left_out(tmp_path: Path, role: str, content: Any) -> None:
    """The turns behind it stay, and so does a system prompt that stands elsewhere in the record."""
    messages = [{"role": role, "content": content}, *chat("Q", "A")["messages"]]
    lines = [{"messages": messages}, {"messages": messages, "system": "S"}]
    _, counts = make(tmp_path, lines, near=None, dev_share=0.0, test_share=0.0)
    assert counts.funnel == []
    found = sorted(json.dumps(row["messages"]) for row in rows(tmp_path, "train"))
    expected = [[{"role": "system", "content": "S"}, *messages[1:]], messages[1:]]
    assert [json.loads(one) for one in found] == expected


def test_system_prompts_of_every_form_come_first(tmp_path: Path) -> None:
    """A role `developer`, a field `system` beside each form, parts of text: one system message; that in the messages
    goes before the field."""
    system = {"role": "developer", "content": parts("S", "!")}
    lines: list[dict[str, Any]] = [
        {"messages": [system, *chat("Q", "A")["messages"]]},
        {"messages": [system, *chat("Q", "A")["messages"]], "system": "other"},
        {**chat("Q", "A"), "system": "S!"},
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}], "system": "S!"},
        {"prompt": "Q", "completion": "A", "system": "S!"},
        {"question": "Q", "answer": "A", "system": parts("S!")},
    ]
    _, counts = make(tmp_path, lines, dev_share=0.0, test_share=0.0)
    assert [(row["reason"], row["documents"]) for row in counts.funnel] == [("exact repeat", 5)]
    (row,) = rows(tmp_path, "train")
    assert row["messages"] == [{"role": "system", "content": "S!"}, *chat("Q", "A")["messages"]]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"messages": [', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "unknown format"),
        ({"text": "x"}, "unknown format"),
        ({"messages": ["x", "y"]}, "unknown format"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "unknown role"),
        ({**chat("q", "a"), "tools": [{"name": "search"}]}, "needs tools"),
        ({**chat("q", "a"), "chat_template_kwargs": {"xml_tools": ["search"]}}, "needs tools"),
        (chat("q", {"parts": 1}), "content is not text"),
        (chat("q", True), "content is not text"),
        (chat("q", [7]), "content is not text"),
        (chat("q", [{"type": "text", "text": 7}]), "content is not text"),
        (chat("q", [{"type": "text"}]), "content is not text"),
        (chat([*parts("q"), {"type": "image_url", "image_url": "x"}], "a"), "content has parts other than text"),
        (chat("q", []), "empty turn"),
        ({"prompt": ["q"], "completion": "a"}, "content is not text"),
        ({"instruction": parts("q"), "input": ["x"], "output": "a"}, "content is not text"),
        ({"instruction": ["q"], "output": "a"}, "content is not text"),
        ({"instruction": 7, "output": "a"}, "content is not text"),
        ({"instruction": "q", "input": {"x": 1}, "output": "a"}, "content is not text"),
        ({"instruction": None, "input": "", "output": "a"}, "unknown format"),
        ({**chat("q", "a"), "system": {"x": 1}}, "content is not text"),
        ({**chat("q", "a"), "tools": '[{"name": "search"}]'}, "needs tools"),
        ({**chat("q", "a"), "tools": "search"}, "needs tools"),
        ('{"prompt": "\\ud800", "completion": "a"}', "content is not valid Unicode"),
        (chat("q", " \n"), "empty turn"),
        (chat("q"), "no assistant turn"),
        ({"messages": []}, "no assistant turn"),
        (chat("q", "a", "q"), "roles do not alternate from user to assistant"),
        ({"messages": chat("q", "a")["messages"][::-1]}, "roles do not alternate from user to assistant"),
        (chat(*["q", "a"] * 3), "more turns than max_turns"),
        (chat("q", "a" * 200), "longer than max_bytes"),
    ],
)
def test_each_fault_has_its_name_in_the_funnel(tmp_path: Path, line: Any, reason: str) -> None:
    """One planted fault beside one good record: counted once under its reason, with its bytes; the good one stays."""
    _, counts = make(tmp_path, [line, chat("fine", "yes")], max_turns=4, max_bytes=100, dev_share=0.0, test_share=0.0)
    (row,) = counts.funnel
    assert (row["step"], row["reason"], row["documents"]) == ("validate", reason, 1)
    assert row["bytes"] > 0
    assert counts.taken["conversations"] == 2
    assert [one["messages"] for one in rows(tmp_path, "train")] == [chat("fine", "yes")["messages"]]


def test_splits_share_no_prompt_however_it_is_written(tmp_path: Path) -> None:
    """Variants of one prompt (case, signs, spaces, answers) fall into one split, and all three splits are filled."""
    lines: list[Any] = []
    for number in range(200):
        lines += [
            chat(f"What is word{number}?", "a"),
            chat(f"  what IS  word{number}", "b"),
            chat(f"What is word{number}!", "c"),
        ]
    make(tmp_path, lines, dev_share=0.2, test_share=0.2)
    words = {
        split: {row["messages"][0]["content"].lower().strip(" ?!").split()[-1] for row in rows(tmp_path, split)}
        for split in ("train", "dev", "test")
    }
    assert sum(len(found) for found in words.values()) == 200
    assert set.union(*words.values()) == {f"word{number}" for number in range(200)}
    assert min(len(found) for found in words.values()) > 20


def test_a_chat_with_the_prompt_of_a_held_out_task_stays_out_of_train(tmp_path: Path) -> None:
    """Prompts of tasks in dev and test do not come into train through a source; the drops are counted."""
    tasks = Tasks(train=60, dev=30, test=30)
    make(tmp_path, [chat("hello", "hi")], "first", tasks=tasks, dev_share=0.0, test_share=0.0)
    held = [row["messages"][0]["content"] for split in ("dev", "test") for row in rows(tmp_path, split, "first")]
    lines = [chat("hello", "hi"), *(chat(f" {prompt.upper()}", "wrong") for prompt in held)]
    _, counts = make(tmp_path, lines, "second", tasks=tasks, dev_share=0.0, test_share=0.0)
    (row,) = counts.funnel
    assert (row["reason"], row["documents"]) == ("prompt of a task of another split", 60)
    train = {row["messages"][0]["content"].strip().lower() for row in rows(tmp_path, "train", "second")}
    assert not train & {prompt.lower() for prompt in held}
    assert "hello" in train


def test_no_cluster_of_the_generated_tasks_is_in_two_splits(tmp_path: Path) -> None:
    """Generated tasks fill their numbers exactly, carry their task, and share no prompt cluster across splits."""
    parts, counts = make(tmp_path, [chat("hello", "hi")], tasks=Tasks(train=600, dev=120, test=120))
    clusters: dict[str, set[str]] = {}
    for split in ("train", "dev", "test"):
        found = [row for row in rows(tmp_path, split) if row["kind"] == "task"]
        assert all(json.loads(row["task"])["answer"] == row["messages"][1]["content"] for row in found)
        clusters[split] = {Dialogue("x", row["messages"]).prompt for row in found}
        assert len(found) == counts.made[f"{split} tasks"] == {"train": 600, "dev": 120, "test": 120}[split]
    assert not clusters["train"] & (clusters["dev"] | clusters["test"])
    assert not clusters["dev"] & clusters["test"]
    assert parts["train"].files[0].rows == counts.made["train tasks"] + counts.made.get("train conversations", 0)


def test_equal_inputs_give_equal_bytes_and_a_limit_takes_the_same_sample(tmp_path: Path) -> None:
    """Two runs agree byte for byte, the order of the lines does not matter, and a limit is counted."""
    lines = [chat(f"question {number}", "a") for number in range(50)]
    first, counts = make(tmp_path, lines, "first", limit=20)
    second, _ = make(tmp_path, lines[::-1], "second", limit=20)
    assert {name: part.digest for name, part in first.items()} == {name: part.digest for name, part in second.items()}
    assert [(row["step"], row["documents"]) for row in counts.funnel] == [("limit", 30)]


def test_parquet_sources_are_read(tmp_path: Path) -> None:
    """A Parquet file of messages gives its conversations."""
    (tmp_path / "files").mkdir()
    pq.write_table(pa.Table.from_pylist([chat("q", "a"), chat("r", "b")]), tmp_path / "files" / "x.parquet")
    source = Source(name="table", kind="parquet", path=str(tmp_path / "files"))
    prepare(tmp_path, DialoguesConfig(sources=[source], tasks=NO_TASKS, dev_share=0.0, test_share=0.0))
    assert [row["source"] for row in rows(tmp_path, "train")] == ["table", "table"]


def test_nothing_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    """When no conversation survives, the stage fails with the counted reasons; likewise when train is empty."""
    with pytest.raises(InputError, match="none of 2 conversations survived: 2 validate: empty turn"):
        make(tmp_path, [chat("q", ""), chat("r", " ")], tasks=Tasks(train=10, dev=0, test=0))
    with pytest.raises(InputError, match="split `train` is empty"):
        prepare(tmp_path, DialoguesConfig(tasks=NO_TASKS), "none")
