"""Tasks of chat sources: they are rows as generated ones are, and one that could not be learnt from is a named drop."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_curation.dialogues import DialoguesConfig, Tasks
from data_curation.settings import InputError
from data_curation.sources.source import Source
from tests.data_curation.chats import ALL_TRAIN, NO_TASKS, chat, make, prepare, rows, source
from training.verifiers import verify

ASKED = chat("Q")["messages"]
NUMBER = {"checker": "number", "answer": "7"}
RULES = [{"words_at_most": 3}, {"contains": "tea"}]


def tasks(tmp_path: Path, split: str = "train", name: str = "run") -> list[dict[str, Any]]:
    """The task rows of one published part, their task read."""
    found = [row for row in rows(tmp_path, split, name) if row["kind"] == "task"]
    return [row | {"task": json.loads(row["task"])} for row in found]


@pytest.mark.parametrize(
    ("record", "reply", "checker", "answer"),
    [
        ({**chat("Q", "It is 7."), "task": NUMBER}, "It is 7.", "number", "7"),
        ({**chat("Q", "It is 7."), "task": json.dumps(NUMBER)}, "It is 7.", "number", "7"),
        ({"messages": ASKED, "task": NUMBER}, "7", "number", "7"),
        ({"messages": ASKED, "task": {"checker": "number", "answer": 7}}, "7", "number", "7"),
        ({"messages": ASKED, "task": {"checker": "exact", "answer": " odd\n"}}, "odd", "exact", " odd\n"),
        ({"prompt": "Q", "task": {"checker": "final_number", "answer": "$1,234"}}, "$1,234", "final_number", "$1,234"),
        ({"messages": ASKED, "task": {"checker": "json", "answer": {"ä": [1]}}}, '{"ä": [1]}', "json", '{"ä": [1]}'),
        ({"conversations": [{"from": "human", "value": "Q"}], "task": NUMBER}, "7", "number", "7"),
        ({"instruction": "Q", "task": NUMBER}, "7", "number", "7"),
        ({"prompt": "Q", "completion": None, "task": NUMBER}, "7", "number", "7"),
        ({"prompt": ASKED, "task": NUMBER}, "7", "number", "7"),
        ({"question": "Q", "answer": "Seven, 7", "task": NUMBER}, "Seven, 7", "number", "7"),
        (
            {**chat("Q", "Green tea."), "task": {"checker": "instructions", "answer": RULES}},
            *("Green tea.", "instructions", json.dumps(RULES)),
        ),
        ({"question": "Q", "answer": "6 + 1 = <<6+1=7>>7\n#### 7"}, "6 + 1 = <<6+1=7>>7\n#### 7", "final_number", "7"),
        ({"question": "Q", "answer": "Much.\n#### 1,234"}, "Much.\n#### 1,234", "final_number", "1,234"),
    ],
)  # fmt: skip
def test_a_record_with_a_task_is_a_task_row(
    tmp_path: Path, record: dict[str, Any], reply: str, checker: str, answer: str
) -> None:
    """Whatever form its conversation has: the same columns as generated tasks have, and a reply that is right."""
    _, counts = make(tmp_path, [record], tasks=Tasks(train=1, dev=0, test=0), **ALL_TRAIN)
    assert counts.funnel == []
    mine = {row["source"]: row for row in tasks(tmp_path)}
    assert mine["talk"].keys() == mine["exercises"].keys()
    assert mine["talk"]["task"] == {"family": "talk", "checker": checker, "answer": answer}
    assert mine["talk"]["messages"] == chat("Q", reply)["messages"]
    assert verify(mine["talk"]["task"], reply)
    assert counts.made["train tasks"] == 2


def test_turns_before_the_question_and_a_family_stay(tmp_path: Path) -> None:
    """A task behind earlier turns and a system prompt keeps them; `family` names what figures are given for."""
    turns = [{"role": "developer", "content": "S"}, *chat("Q", "A", "What is 3 + 4?")["messages"]]
    make(tmp_path, [{"messages": turns, "task": {**NUMBER, "family": "sums"}}], **ALL_TRAIN)
    (row,) = tasks(tmp_path)
    assert row["task"]["family"] == "sums"
    assert [turn["role"] for turn in row["messages"]] == ["system", "user", "assistant", "user", "assistant"]
    assert row["messages"][-1]["content"] == "7"


@pytest.mark.parametrize("label", ["summarization", "", None, {}, 7, {"checker": None, "answer": None}])
def test_a_label_of_a_set_is_no_task(tmp_path: Path, label: Any) -> None:
    """Sets that call something else `task` stay conversations; so do questions whose answers hold `####` elsewhere."""
    lines = [
        {**chat("Q", "A"), "task": label},
        {"question": "How?", "answer": "#### First\nBoil it."},
        {"question": "And then?", "answer": "Wait.\n#### Enough"},
        {"prompt": "Q", "chosen": "A", "rejected": "B", "answer": "C\n#### 7", "question": "Q", "task": label},
    ]
    _, counts = make(tmp_path, lines, **ALL_TRAIN)
    assert counts.funnel == []
    assert {row["kind"] for row in rows(tmp_path, "train")} == {"chat"}
    assert counts.made["train conversations"] == 3 and counts.made["train preferences"] == 1


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({**chat("Q", "7"), "task": {"checker": "regex", "answer": "7"}}, "task with an unknown checker"),
        ({**chat("Q", "7"), "task": {"answer": "7"}}, "task with an unknown checker"),
        ({**chat("Q", "7"), "task": {"checker": ["number"], "answer": "7"}}, "task with an unknown checker"),
        (
            {**chat("Q", "7"), "task": {"checker": "number", "answer": "seven"}},
            "task with an answer that its checker cannot read",
        ),
        (
            {**chat("Q", "7"), "task": {"checker": "instructions", "answer": [{"colour": "red"}]}},
            "task with an answer that its checker cannot read",
        ),
        ({**chat("Q", "7"), "task": {"checker": "number"}}, "task without an answer"),
        ({**chat("Q", "8"), "task": NUMBER}, "task whose checker refuses its reply"),
        ({"messages": ASKED, "task": {"checker": "number", "answer": "7e0"}}, "task whose checker refuses its reply"),
        ({**chat("Q", "7"), "task": '{"checker": '}, "task that is not JSON"),
        ({**chat("Q", "7"), "task": {**NUMBER, "family": ["a"]}}, "task whose family is not text"),
        ('{"prompt": "Q", "task": {"checker": "exact", "answer": "\\ud800"}}', "task that is not valid Unicode"),
        ('{"prompt": "Q", "completion": "7", "task": {"checker": "number", "answer": "7", "family": "\\ud800"}}',
         "task that is not valid Unicode"),
        ({"messages": ASKED, "task": {"checker": "exact", "answer": " "}}, "empty turn"),
        ({"messages": ASKED, "task": {"checker": "instructions", "answer": RULES}}, "no assistant turn"),
        ({"task": NUMBER}, "unknown format"),
        ({"prompt": "Q", "chosen": "7", "rejected": "8", "task": NUMBER}, "task beside a preference"),
    ],
)  # fmt: skip
def test_each_fault_of_a_task_has_its_name(tmp_path: Path, record: Any, reason: str) -> None:
    """One planted fault beside one good task: counted once under its reason; the good one stays."""
    _, counts = make(tmp_path, [record, {**chat("good", "7"), "task": NUMBER}], **ALL_TRAIN)
    assert [(row["step"], row["reason"], row["documents"]) for row in counts.funnel] == [("validate", reason, 1)]
    assert [row["messages"][0]["content"] for row in tasks(tmp_path)] == ["good"]


def test_tasks_of_parquet_are_read(tmp_path: Path) -> None:
    """A column of objects, null where a row has no task and with nulls for the rules that are not meant."""
    rules = {"checker": "instructions", "answer": [{"lines": 1}, {"lacks": "milk"}]}
    (tmp_path / "files").mkdir()
    table = pa.Table.from_pylist([{**chat("Q", "Tea."), "task": rules}, {**chat("R", "A"), "task": None}])
    pq.write_table(table, tmp_path / "files" / "x.parquet")
    given = Source(name="table", kind="parquet", path=str(tmp_path / "files"))
    prepare(tmp_path, DialoguesConfig.model_validate({"sources": [given], "tasks": NO_TASKS, **ALL_TRAIN}))
    assert sorted(row["kind"] for row in rows(tmp_path, "train")) == ["chat", "task"]
    (row,) = tasks(tmp_path)
    assert verify(row["task"], "Green tea.") and not verify(row["task"], "Tea, milk.")


def test_repeats_of_tasks(tmp_path: Path) -> None:
    """A conversation is a task where any of its copies is one; nearly equal tasks with another expected answer stay,
    in any order of the records."""
    long = " ".join(f"word{number}" for number in range(60))
    lines = [
        chat("Q", "7"),
        {**chat("Q", "7"), "task": NUMBER},
        *(
            {**chat(f"{long} {n}", f"{long} {n}"), "task": {"checker": "final_number", "answer": str(n)}}
            for n in (1, 2)
        ),
        {**chat(f"{long} 2!", f"Well, {long} 2"), "task": {"checker": "final_number", "answer": "2"}},
    ]
    first, counts = make(tmp_path, lines, "first", **ALL_TRAIN)
    second, _ = make(tmp_path, lines[::-1], "second", **ALL_TRAIN)
    assert first["train"].digest == second["train"].digest
    assert {row["reason"]: row["documents"] for row in counts.funnel} == {"exact repeat": 1, "near-duplicate": 1}
    assert sorted(row["task"]["answer"] for row in tasks(tmp_path, "train", "first")) == ["1", "2", "7"]


def test_tasks_are_split_as_conversations_are(tmp_path: Path) -> None:
    """A question and its other wordings are in one split, task or chat; the held-out splits have tasks of sources."""
    lines: list[Any] = []
    for n in range(100):
        lines += [{**chat(f"What is thing{n} worth?", str(n)), "task": {"checker": "number", "answer": n}},
                  chat(f"what is THING{n} worth", f"about {n}")]  # fmt: skip
    make(tmp_path, lines, dev_share=0.2, test_share=0.2, tasks=Tasks(train=5, dev=5, test=5))
    for split in ("train", "dev", "test"):
        mine = {row["task"]["answer"] for row in tasks(tmp_path, split) if row["source"] == "talk"}
        chats = {row["messages"][1]["content"].split()[-1] for row in rows(tmp_path, split) if row["kind"] == "chat"}
        assert mine == chats and len(mine) > 8
        assert sum(row["source"] == "exercises" for row in tasks(tmp_path, split)) == 5


def test_weights_and_limits_of_tasks(tmp_path: Path) -> None:
    """Tasks are weighed among themselves and come once, however often conversations do; a limit counts both."""

    def sized(n: int, name: str) -> dict[str, Any]:
        return {**chat(f"{name} {n:04d}", f"{'x' * 50} 7"), "task": {"checker": "final_number", "answer": "7"}}

    sources = [
        source(tmp_path, "chats", [chat(f"c {n:04d}", "x" * 50) for n in range(50)], weight=1),
        source(tmp_path, "some", [sized(n, "s") for n in range(200)], weight=1),
        source(tmp_path, "many", [sized(n, "m") for n in range(200)], weight=2),
    ]
    given = DialoguesConfig.model_validate(
        {"sources": sources, "tasks": NO_TASKS, "near": None, "max_passes": 2, **ALL_TRAIN}
    )
    _, counts = prepare(tmp_path, given)
    found = [row["source"] for row in rows(tmp_path, "train")]
    assert {name: found.count(name) for name in set(found)} == {"chats": 100, "some": 100, "many": 200}
    assert counts.metrics["passes over chats"]["value"] == pytest.approx(2)
    assert counts.metrics["passes over tasks of some"]["value"] == pytest.approx(0.5)
    both = [chat(f"c {n}", "x") for n in range(50)] + [sized(n, "t") for n in range(50)]
    _, counts = make(tmp_path, both, "limited", limit=30, near=None, **ALL_TRAIN)
    assert len(rows(tmp_path, "train", "limited")) == 30
    assert {row["kind"] for row in rows(tmp_path, "train", "limited")} == {"chat", "task"}


def test_the_documented_tasks_are_read(tmp_path: Path) -> None:
    """The example of docs/data.md gives a task a line."""
    text = (Path(__file__).parents[2] / "docs/data.md").read_text()
    lines = text.split("```json\n")[1].split("\n```")[0].split("\n")
    _, counts = make(tmp_path, lines, **ALL_TRAIN)
    assert counts.funnel == []
    assert sorted(row["task"]["checker"] for row in tasks(tmp_path)) == ["instructions", "number"]


def test_a_source_of_tasks_alone_is_enough(tmp_path: Path) -> None:
    """No conversation is needed beside tasks; that all of a source's are bad is an error that says why."""
    make(tmp_path, [{"question": f"Q{n}?", "answer": f"So.\n#### {n}"} for n in range(3)], **ALL_TRAIN)
    assert len(tasks(tmp_path)) == 3
    bad = {**chat("Q", "8"), "task": NUMBER}
    with pytest.raises(InputError, match="none of 1 conversations survived: 1 validate: task whose checker refuses"):
        make(tmp_path, [bad], "bad", tasks=Tasks(train=5, dev=1, test=1))


def test_a_generated_task_comes_once(tmp_path: Path) -> None:
    """One that a source holds, too, is dropped under its reason: no id stands twice in a part."""
    config = {"tasks": Tasks(train=8, dev=0, test=0), **ALL_TRAIN}
    make(tmp_path, [chat("x", "y")], name="first", **config)
    (one, *_) = [row for row in rows(tmp_path, "train", "first") if row["task"]]
    again = {"messages": one["messages"], "task": json.loads(one["task"])}
    _, counts = make(tmp_path, [again, chat("x", "y")], name="second", **config)
    assert [(row["reason"], row["documents"]) for row in counts.funnel] == [("equal to a generated task", 1)]
    ids = [row["id"] for row in rows(tmp_path, "train", "second")]
    assert len(ids) == len(set(ids)) == 9


def test_empty_columns_beside_a_record_are_none(tmp_path: Path) -> None:
    """Tables have every column in every row: what is null says nothing, whatever form it belongs to."""
    lines = [
        {"prompt": None, "instruction": None, "messages": None, "question": "How many?", "answer": "Five. #### 5"},
        {"instruction": None, "output": None, "prompt": "Hello", "completion": "there", "question": None},
        chat("x", "y"),
    ]
    make(tmp_path, lines, **ALL_TRAIN)
    found = {(row["kind"], *(turn["content"] for turn in row["messages"])) for row in rows(tmp_path, "train")}
    assert found == {("task", "How many?", "Five. #### 5"), ("chat", "Hello", "there"), ("chat", "x", "y")}
