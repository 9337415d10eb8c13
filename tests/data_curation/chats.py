"""Chat records made for tests, and the stage `dialogues` run on them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_curation.artifact import Part
from data_curation.counts import Counts
from data_curation.decontaminate import DecontaminateConfig
from data_curation.dialogues import DialoguesConfig, Tasks, dialogues
from data_curation.documents import read_rows
from data_curation.place import Place, parts_of
from data_curation.sources.listing import resolve
from data_curation.sources.source import Source

NO_TASKS = Tasks(train=0, dev=0, test=0)
ALL_TRAIN = {"dev_share": 0.0, "test_share": 0.0}


def chat(*contents: Any) -> dict[str, Any]:
    """A record in OpenAI's form, turns in alternation."""
    roles = ("user", "assistant") * len(contents)
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]}


def source(tmp_path: Path, name: str, lines: Iterable[Any], **settings: Any) -> Source:
    """A JSONL source of these records; a line that is no dictionary is written as it is."""
    folder = tmp_path / "sources" / name
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "a.jsonl").write_text(text)
    return Source.model_validate({"name": name, "kind": "jsonl", "path": str(folder)} | settings)


def prepare(
    tmp_path: Path, config: DialoguesConfig, name: str = "run", section: DecontaminateConfig | None = None
) -> tuple[dict[str, Part], Counts]:
    """Parts and counts of the stage in the folder `name`; `section` holds evaluation sets."""
    section = section or DecontaminateConfig()
    place = Place(str(tmp_path / name), tmp_path / f"{name}-scratch")
    listed, evaluations = (
        [resolve(one, tmp_path / "home")[0] for one in some] for some in (config.sources, section.evaluations)
    )
    counts = dialogues(config.against(section), listed, place, evaluations)
    return parts_of(place.pieces()), counts


def make(tmp_path: Path, lines: Iterable[Any], name: str = "run", **settings: Any) -> tuple[dict[str, Part], Counts]:
    """The same for one source of these records, without tasks."""
    talk = source(tmp_path, "talk", lines, limit=settings.pop("limit", None))
    return prepare(tmp_path, DialoguesConfig.model_validate({"sources": [talk], "tasks": NO_TASKS, **settings}), name)


def rows(tmp_path: Path, split: str, name: str = "run") -> list[dict[str, Any]]:
    """The rows of one published part."""
    return list(read_rows(str(tmp_path / name / split / "00000.parquet")))


def said(tmp_path: Path, split: str, name: str = "run") -> list[list[str]]:
    """The contents of the rows of one published part."""
    return [[turn["content"] for turn in row["messages"]] for row in rows(tmp_path, split, name)]
