"""Guarantees of the road's listings: an older index and a block list reach `dedup`, and none costs nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.store import Store
from tests.data_curation.places import rows
from tests.data_curation.prose import text
from tests.flows.test_road import tokenmill


def preset(home: Path, numbers: range, dedup: dict[str, Any]) -> Path:
    """A configuration of the first stages, with a source of its own of texts by their numbers."""
    source = home / f"pages-{numbers.start}"
    source.mkdir()
    lines = [json.dumps({"text": text(number), "url": f"https://a.example/{number}"}) for number in numbers]
    (source / "all.jsonl").write_text("\n".join(lines))
    config = {
        "dialogues": {"tasks": {"train": 30, "dev": 10, "test": 10}},
        "extract": {"sources": [{"name": "pages", "kind": "jsonl", "path": str(source)}]},
        "clean": {"languages": [{"code": "en"}]},
        "dedup": dedup,
        "run": {
            **{name: str(home / name) for name in ("store", "export", "home", "sources")},
            "resources": {"workers": 1},
        },
    }
    path = home / f"{numbers.start}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.usefixtures("prefect_api")
def test_older_index_and_block_list_reach_dedup(tmp_path: Path):
    """A second crawl loses what the first one had and what is blocked; a run without lists has no task for them."""
    code, first, said = tokenmill("run", preset(tmp_path, range(10), {}), "--until", "dedup")
    assert code == 0, said
    assert [stage["name"] for stage in first["stages"]] == ["dialogues", "extract", "clean", "dedup"]
    assert "sources-indexes" not in said and "sources-blocked" not in said and "sources-positive" not in said
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "list.txt").write_text("https://a.example/12\n")
    index = Path(next(stage["uri"] for stage in first["stages"] if stage["name"] == "dedup")) / "index"
    lists = {
        "indexes": [{"name": "older", "kind": "parquet", "path": str(index)}],
        "blocked": [{"name": "blocked", "kind": "lines", "path": str(tmp_path / "blocked")}],
    }
    second = preset(tmp_path, range(5, 15), lists)
    code, made, said = tokenmill("run", second, "--until", "dedup")
    assert code == 0, said
    assert "sources-indexes" in said and "sources-blocked" in said
    stage = next(stage for stage in made["stages"] if stage["name"] == "dedup")
    manifest = Store(str(tmp_path / "store")).manifest("dedup", stage["key"], stage["attempt"])
    decided = rows(manifest.artifact("dedup", stage["uri"]), "decisions")
    steps = {row["url"].rsplit("/", 1)[-1]: row["step"] for row in decided}
    assert {url for url, step in steps.items() if step == "blocked"} == {"12"}
    assert {url for url, step in steps.items() if step == "dedup"} == {"10", "11", "13", "14"}
    _, planned, _ = tokenmill("plan", second, "--until", "dedup")
    assert {stage["state"] for stage in planned["stages"]} == {"cached"}
