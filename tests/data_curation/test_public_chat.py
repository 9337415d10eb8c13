"""Public chat sets: the preset's sources read folders of the same configurations, splits and columns as on the hub.

The rows are made here; nobody's data are in this repository and no test asks the hub.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_curation.dialogues import Tasks
from data_curation.sources.source import Source
from flows.config import load
from tests.data_curation.chats import chat, prepare, rows

NUMBER = 12
KWARGS = {"custom_instructions": "", "enable_thinking": False, "python_tools": [], "xml_tools": []}
MESSAGES = pa.list_(pa.struct([("content", pa.string()), ("role", pa.string())]))
APART = pa.struct(
    [
        ("custom_instructions", pa.string()),
        ("enable_thinking", pa.bool_()),
        ("python_tools", pa.list_(pa.string())),
        ("xml_tools", pa.list_(pa.string())),
    ]
)
TYPES = {"messages": MESSAGES, "chosen": MESSAGES, "rejected": MESSAGES, "chat_template_kwargs": APART}
REPLIES = "It is done by hand in a quiet room and takes about {} hours of work, as everybody there knows."


def turns(name: str, number: int, reply: str = "") -> list[dict[str, str]]:
    """A conversation of one question."""
    return chat(f"How is {name} thing{number} made?", reply or REPLIES.format(number))["messages"]


def record(name: str, number: int) -> dict[str, Any]:
    """A row with the columns of the public set that the preset calls by this name."""
    asked, good = (turn["content"] for turn in turns(name, number))
    bad = f"I do not know {number}."
    sides = {"chosen": turns(name, number), "rejected": turns(name, number, bad)}
    return {
        "smoltalk2": {"messages": turns(name, number), "chat_template_kwargs": KWARGS, "source": "x"},
        "tulu3": {"id": f"x_{number}", "messages": turns(name, number), "source": "x"},
        "gsm8k": {"question": asked, "answer": f"{good}\n#### {number}"},
        "ultrafeedback": {
            "prompt": asked, "prompt_id": "x", **sides, "messages": sides["chosen"], "score_chosen": 8.5,
            "score_rejected": 3.0,
        },
        "tulu3-preferences": {"id": "x", "prompt": asked, **sides, "source": "x"},
        "hh": {
            "chosen": f"\n\nHuman: {asked}\n\nAssistant: {good}", "rejected": f"\n\nHuman: {asked}\n\nAssistant: {bad}"
        },
        "smoltalk2-preferences": {**sides, "prompt": asked, "chat_template_kwargs": KWARGS, "source": "x"},
    }[name]  # fmt: skip


def repository(home: Path, source: Source) -> Source:
    """The source, at a folder in place of its repository, with its configuration and split and twelve rows."""
    folder = home / source.name
    folder.mkdir(parents=True)
    made = [record(source.name, number) for number in range(NUMBER)]
    columns = {
        name: pa.array([row[name] for row in made], None if isinstance(made[0][name], str) else TYPES.get(name))
        for name in made[0]
    }
    pq.write_table(pa.table(columns), folder / "part.parquet")
    config = (
        f"- config_name: {source.config or 'default'}\n  data_files: [{{split: {source.split}, path: part.parquet}}]"
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{config}\n---\n")
    return source.model_copy(update={"path": str(folder), "fraction": 1.0, "weight": None})


@pytest.mark.parametrize("source", load("public-chat").dialogues.sources, ids=lambda source: source.name)
def test_each_public_set_is_read_by_its_columns(source: Source, tmp_path: Path) -> None:
    """Every row of a set comes out, as a conversation, as a task (GSM8K) or as a preference record with both replies;
    none drops."""
    dialogues = load("public-chat").dialogues.model_copy(
        update={"sources": [repository(tmp_path, source)], "tasks": Tasks(train=4, dev=0, test=0), "near": None,
                "languages": [], "test_share": 0.0, "dev_share": 0.0}
    )  # fmt: skip
    _, counts = prepare(tmp_path, dialogues)
    assert counts.funnel == []
    given = rows(tmp_path, "train-preferences")
    chats = [row for row in rows(tmp_path, "train") if row["source"] == source.name]
    assert sorted([len(given), len(chats)]) == [0, NUMBER]
    assert {row["kind"] for row in chats} <= {"task" if source.name == "gsm8k" else "chat"}
    for row in [*given, *chats]:
        assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"]
        number = int(row["messages"][0]["content"].split("thing")[1].split()[0])
        assert row["messages"][1]["content"].startswith(REPLIES.format(number))
        if row.get("task"):
            assert json.loads(row["task"]) == {"family": "gsm8k", "checker": "final_number", "answer": str(number)}
        assert row.get("rejected", f"I do not know {number}.") == f"I do not know {number}."


def test_the_preset_mixes_all_of_them(tmp_path: Path) -> None:
    """All sets with the preset's weights: equal ones give equal bytes, the scarcest of a kind is taken whole."""
    preset = load("public-chat").dialogues
    folders = [repository(tmp_path, one).model_copy(update={"weight": one.weight}) for one in preset.sources]
    dialogues = preset.model_copy(
        update={"sources": folders, "tasks": Tasks(train=4, dev=0, test=0), "near": None, "near_prompts": None}
    )
    _, counts = prepare(tmp_path, dialogues)
    passes = {name.split()[-1]: row["value"] for name, row in counts.metrics.items() if name.startswith("passes")}
    assert set(passes) == {source.name for source in folders}
    assert passes["smoltalk2"] == pytest.approx(passes["tulu3"], rel=0.05)
    assert passes["ultrafeedback"] == pytest.approx(passes["tulu3-preferences"], rel=0.05)
    assert max(passes["smoltalk2"], passes["tulu3"]) == max(passes["ultrafeedback"], passes["tulu3-preferences"]) == 1
    assert counts.metrics["passes over tasks of gsm8k"]["value"] == 1
