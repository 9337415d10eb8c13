"""Estimates: amounts from listings and limits, work by hand, and what a stage took here before comes first."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_curation.artifact import Artifact, Part
from data_curation.counts import Counts
from data_curation.files import File
from data_curation.sources.source import Source
from tasks import rates
from tasks.alignment_cost import Chats, work_of
from tasks.artifact import Manifest
from tasks.estimate import Calibration, Estimate
from tasks.plan import disk, with_budget
from tasks.rates import Rate
from tasks.run import Run, RunConfig, StageRecord
from tasks.store import Store
from tests.tasks.test_budget import TINY, config

CHATS = Chats({"train": 100, "dev": 20, "test": 10}, 10, 3800)
ROAD: dict[str, Any] = {"pairs": {"prompts": 50, "test_prompts": 10, "max_new_tokens": 20}}


def manifest(seconds: float, taken: int, made: int, config: dict[str, Any] | None = None) -> Manifest:
    """Of a stage that took so many bytes and made so many."""
    facts: dict[str, Any] = {key: {} for key in ("inputs", "sources", "packages", "machine")}
    words = dict.fromkeys(("word", "key", "code", "commit", "made", "run"), "x")
    parts = {"documents": Part((File("00000.parquet", made // 2, "0"),))}
    counts = Counts(taken={"bytes": taken}, made={"bytes": made})
    numbers: dict[str, Any] = {"attempt": 1, "version": 1, "seconds": seconds, "peak_memory": 1}
    return Manifest(**facts, **words, **numbers, config=config or {}, parts=parts, records=[], counts=counts)


def estimated(
    tmp_path: Path, records: list[StageRecord], sources: list[Source], sizes: dict[str, int], **given: Any
) -> dict[str, dict[str, Any]]:
    """Figures by stage of a road over files of these sizes, one of each source in turn; none are listed without."""
    sections = {"extract": {"sources": [source.model_dump() for source in sources]}, **ROAD}
    run = Run("toy", sections, RunConfig(), Store(str(tmp_path / "store")), "plan", stages=records)
    if sizes:
        files = [Artifact("x", "", {"files": Part((File(path, size, "0"),))}) for path, size in sizes.items()]
        run.listed["sources-web"] = files
    Estimate(run, TINY, 300, given.get("calibration", Calibration()), None).road()
    return {record.name: record.figures for record in records}


def stages(*names: str, **made: Manifest) -> list[StageRecord]:
    """Records of stages that have to run; `made` are their last manifests."""
    return [StageRecord(name, name, "run", "never made", manifest=made.get(name)) for name in names]


def test_curation_follows_from_the_files(tmp_path: Path) -> None:
    """Packed bytes are unpacked, pages give a share of text and rows all of it; each stage hands its share on."""
    pages = Source(name="a", kind="warc", path="/a")
    rows = Source(name="b", kind="jsonl", path="/b", fraction=0.5)
    sizes = {"a.warc.gz": 1_000_000_000, "b.jsonl": 2_000_000_000}
    found = estimated(tmp_path, stages("extract", "clean", "shard"), [pages, rows], sizes)
    extract, clean = rates.CURATION["extract"], rates.CURATION["clean"]
    raw, text = 3.4e9 + 1e9, 3.4e9 * extract.kept + 1e9
    assert found["extract"]["seconds"] == pytest.approx(extract.start + raw / extract.speed / 2, abs=0.1)
    assert found["extract"]["bytes"] == pytest.approx(text * extract.written)
    assert found["clean"]["seconds"] == pytest.approx(clean.start + text / clean.speed / 2, abs=0.1)
    assert found["shard"]["tokens"] == pytest.approx(text * clean.kept / rates.BYTES_PER_TOKEN, abs=1)
    assert disk(list(found.values())) == sum(one["bytes"] for one in found.values()) + found["shard"]["work_bytes"]


def test_sources_that_are_not_here_count_by_their_limit_or_not_at_all(tmp_path: Path) -> None:
    """A fetched source of 1,000 pages has a size before it is fetched; a folder that is not there has none."""
    fetched = Source(name="a", kind="web-packages", packages=["x"], limit=1000)
    found = estimated(tmp_path, stages("extract"), [fetched], {})["extract"]
    rate = rates.CURATION["extract"]
    assert found["bytes"] == pytest.approx(1000 * rates.PAGE_BYTES * rate.kept * rate.written, abs=1)
    gone = Source(name="b", kind="warc", path="/b")
    assert estimated(tmp_path, stages("extract", "clean", "shard"), [fetched, gone], {}) == {
        "extract": {}, "clean": {}, "shard": {},
    }  # fmt: skip


def test_the_last_run_and_a_probe_come_before_published_rates(tmp_path: Path) -> None:
    """Twice the bytes of last time take twice its seconds; a stage never made goes by the probe's rates."""
    source = Source(name="a", kind="html", path="/a")
    some = stages("extract", "clean", extract=manifest(10, 1_000_000, 400_000))
    probed = Calibration(curation={"clean": Rate(1e5, 1.0, 0.25, 0.5)})
    found = estimated(tmp_path, some, [source], {"a.html": 2_000_000}, calibration=probed)
    assert found["extract"] == {"seconds": 20, "seconds_from": "last run", "bytes": 400_000}
    assert found["clean"] == {"seconds": 1 + 800_000 / 1e5 / 2, "seconds_from": "probe", "bytes": 100_000}


def test_more_steps_than_last_time_take_more_seconds(tmp_path: Path) -> None:
    """The work of both settings is compared: ten times the steps take nearly ten times the time of steps."""
    before = manifest(100, 0, 0, {"steps": 10, "prompts_per_step": 64, "max_new_tokens": 20})
    record = StageRecord("reinforce", "reinforce", "run", "field reinforce.steps 10 -> 100", manifest=before)
    run = Run("toy", ROAD | {"reinforce": before.config | {"steps": 100}}, RunConfig(), Store(str(tmp_path)), "plan")
    run.stages = [record]
    Estimate(run, TINY, 300, Calibration(), None).road()
    one, ten = (
        work_of("reinforce", before.config | {"steps": steps}, ROAD, CHATS, 1e5).seconds(8e10, 2) for steps in (10, 100)
    )
    assert record.figures["seconds"] == pytest.approx(100 * ten / one, rel=0.1) and ten > 2 * one


def test_work_by_hand() -> None:
    """Training counts three passes, reading one; answers read their prompt and half of what they may say."""
    tokens = 100 * rates.PROMPT_TOKENS + 3800 / rates.BYTES_PER_TOKEN
    work = work_of(
        "instruct", {"epochs": 2, "held_out": "dev", "held_out_tasks": 30, "max_new_tokens": 16}, ROAD, CHATS, 10.0
    )
    assert work.tokens == tokens
    assert work.flops == 10 * (3 * 2 * tokens + 2 * 20 * (rates.PROMPT_TOKENS + 8))
    assert work.steps == 16  # 40 answers are one batch
    fewer = work_of("instruct", {"tasks": 30}, ROAD, CHATS, 10.0)
    assert fewer.tokens == tokens - 70 * rates.PROMPT_TOKENS
    work = work_of("pairs", {"prompts": 50, "samples": 4, "test_samples": 2, "max_new_tokens": 20}, ROAD, CHATS, 1.0)
    assert work.flops == (50 * 4 + 10 * 2) * (rates.PROMPT_TOKENS + 10) and work.steps == 4 * 20
    pair = 2 * (rates.PROMPT_TOKENS + 10)
    work = work_of("prefer", {"epochs": 3, "max_new_tokens": 20}, ROAD, CHATS, 1.0)
    made, test = rates.PAIRED * 50, rates.PAIRED * 10
    answers = 2 * 10 * (rates.PROMPT_TOKENS + 10)  # all held-out prompts, whether or not they made a pair
    assert work.flops == pytest.approx(made * pair * (3 * 3 + 1) + 2 * test * pair + answers)
    given = work_of("prefer", {"max_new_tokens": 20}, ROAD, replace(CHATS, preferences={"train": 30}), 1.0)
    assert given.tokens == work.tokens + 30 * pair


def test_settings_of_an_earlier_release_are_passed_over() -> None:
    """A manifest with fields that are no more is estimated by today's settings."""
    old = work_of("evaluate", {"no_such_field": 1}, ROAD | {"evaluate": {"heldout_tokens": 10}}, CHATS, 1.0)
    assert old.tokens == 10
    assert replace(old, tokens=0) != old


def test_too_few_expected_tokens_are_warned_of_before_there_are_shards(tmp_path: Path) -> None:
    """The phases ask for more than four times what the sources will give; with as many again nothing is said."""
    asked = config((64, 40_960_000, None))
    kept = rates.CURATION["clean"].kept / rates.BYTES_PER_TOKEN
    found: list[list[str]] = []
    for tokens in (9e6, 11e6):
        run = Run("toy", {}, RunConfig(), Store(str(tmp_path / "store")), "plan")
        run.config = {"extract": {"sources": [Source(name="a", kind="jsonl", path="/a").model_dump()]}}
        run.listed["sources-web"] = [Artifact("a", "", {"files": Part((File("a.jsonl", int(tokens / kept), "0"),))})]
        run.stages = [*stages("extract", "clean", "shard"), StageRecord("pretrain-64", "pretrain", "run", "never made")]
        with_budget(run, asked, 300, Calibration())
        found.append([text for text in run.stages[-1].warnings if "unique ones are expected" in text])
    assert len(found[0]) == 1 and "40,960,000 tokens, about 9,000,000 unique ones" in found[0][0] and not found[1]


def test_other_settings_go_by_the_last_runs_pace(tmp_path: Path) -> None:
    """A stage whose key has changed has no artifact; what the newest run of the preset had in its place counts."""
    run = Run("toy", {}, RunConfig(), Store(str(tmp_path / "store")), "plan", stages=stages("extract"))
    run.config = {"extract": {"sources": [Source(name="a", kind="html", path="/a").model_dump()]}}
    run.listed["sources-web"] = [Artifact("a", "", {"files": Part((File("a.html", 2_000_000, "0"),))})]
    home = tmp_path / "store/extract/key/1"
    home.mkdir(parents=True)
    (home / "manifest.json").write_bytes(manifest(10, 1_000_000, 400_000).to_json())
    run.previous = {"extract": {"key": "key", "attempt": 1}}
    Estimate(run, TINY, 300, Calibration(), None).road()
    assert run.stages[0].figures == {"seconds": 20, "seconds_from": "last run", "bytes": 400_000}
