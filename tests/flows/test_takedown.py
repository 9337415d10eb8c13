"""Guarantees of `tokenmill takedown`: what was planted is in no byte of the store afterwards, nor comes back."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_curation.files import sha256_file
from tests.flows.crawls import PLANTED, holding, preset, url
from tests.flows.test_road import states, tokenmill


@pytest.fixture(scope="module")
def road(prefect_api: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with a finished road over 40 pages with planted ones, and its configuration."""
    folder = tmp_path_factory.mktemp("taken")
    config = preset(folder, range(40))
    code, _, said = tokenmill("run", config, "--until", "pretrain")
    assert code == 0, said
    (folder / "urls.txt").write_text(f"# a request\n\n{url(7)}\n{url(9)}\nhttps://a.example/unknown\n")
    return folder, config


def takedown(road: tuple[Path, Path], *words: str) -> dict[str, Any]:
    """The answer of `tokenmill takedown`."""
    folder, config = road
    code, answer, said = tokenmill("takedown", folder / "urls.txt", config, "--until", "pretrain", *words)
    assert code == 0, said
    return answer


def contents(folder: Path) -> dict[str, str]:
    """Path -> sha256 of every file of the store."""
    return {path.as_posix(): sha256_file(str(path)) for path in folder.rglob("*") if path.is_file()}


def test_dry_by_default(road: tuple[Path, Path]) -> None:
    """It names the documents, their near-duplicates, artifacts, models and what would follow; no byte changes."""
    before = contents(road[0] / "store")
    answer = takedown(road)
    assert contents(road[0] / "store") == before
    assert {one["url"]: one["near"] for one in answer["documents"]} == {url(7): False, url(9): False, url(8): True}
    assert answer["unknown"] == ["https://a.example/unknown"]
    holds = {one["name"]: one["holds"] for one in answer["artifacts"]}
    assert {holds[word] for word in ("extract", "clean", "dedup", "decontaminate")} == {"documents"}
    assert (holds["shard"], holds["tokenizer"], holds["pretrain-64"]) == ("tokens", "made of them", "made of them")
    assert {one["name"] for one in answer["models"]} == {"pretrain-64", "pretrain-128"}
    follows = {one["name"]: (one["state"], one["why"]) for one in answer["stages"]}
    assert follows["dedup"][0] == "run" and "extract" not in follows and "clean" not in follows
    assert follows["shard"][0] == "if-changed"


def test_no_byte_is_left(road: tuple[Path, Path]) -> None:
    """After --apply --purge no file of the store holds the planted text, decompressed and decoded; nor after a new run.

    The new run makes only those pieces of `extract` again that held a page, and ends with the models of the first.
    """
    folder, config = road
    assert len(holding(folder / "store", PLANTED)) > 6  # documents, shards, decisions, records, reports
    answer = takedown(road, "--apply", "--purge")
    assert holding(folder / "store", PLANTED) == []
    removed = " ".join(answer["removed"])
    for word in ("clean/", "dedup/", "decontaminate/", "tokenizer/", "shard/", "pretrain/"):
        assert word in removed
    assert any(line.startswith("source pages at ") for line in answer["left"])
    assert any("decisions, id and URL without text" in line for line in answer["left"])
    list_of = Path(answer["block_list"]).read_text().splitlines()
    assert {url(7), url(8), url(9), "https://a.example/unknown"} <= set(list_of)
    code, again, said = tokenmill("run", config, "--until", "pretrain")
    assert code == 0, said
    assert holding(folder / "store", PLANTED) == []
    made = {name for name, state in states(again).items() if state == "made"}
    assert made == {"extract", "clean", "dedup"}  # equal documents come out, so that all models stay
    assert "extract: goes on with" in said
    assert set(states(tokenmill("run", config, "--until", "pretrain")[1]).values()) == {"cached"}
    code, _, said = tokenmill("verify", "--deep", "--store", folder / "store")
    assert code == 0, said


def test_a_list_without_names_is_refused(road: tuple[Path, Path], tmp_path: Path) -> None:
    """An empty list, and a file that is none, are errors with a remedy."""
    (tmp_path / "empty.txt").write_text("# nothing\n")
    code, _, said = tokenmill("takedown", tmp_path / "empty.txt", road[1])
    assert code == 1 and "holds no id or URL: write one a line" in said
    code, _, said = tokenmill("takedown", tmp_path / "none.txt", road[1])
    assert code == 2 and "cannot be read" in said


def test_blocked_pages_are_counted(road: tuple[Path, Path]) -> None:
    """The funnel of the new `extract` names them, without their text."""
    (report,) = [json.loads(path.read_text()) for path in [road[0] / "export" / "report.json"]]
    rows = {(row["stage"], row["step"], row["reason"]): row["documents"] for row in report["funnel"]}
    assert rows["extract", "record", "taken-down"] == 3
