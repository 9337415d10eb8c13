"""The probes: the real stages give speeds and shares for this machine and these sources, and leave nothing behind."""

from pathlib import Path

import pytest

from data_curation.place import Resources
from data_curation.sources.listing import resolve
from data_curation.sources.source import Source
from tasks.budget import budget
from tasks.estimate import Calibration
from tasks.plan import with_budget
from tasks.probe import probe
from tasks.probe_curation import probe_curation
from tasks.rates import START
from tasks.run import Run, RunConfig, StageRecord
from tasks.store import Store
from tests.data_curation.prose import paragraphs
from tests.tasks.test_budget import config


def test_a_probe_counts_time_and_money(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every phase is trained for a moment; its seconds in the plan are a start and tokens over the measured speed."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    asked = config((64, 80_000, None), (128, 40_000, None))
    speeds = probe(asked, 300, Resources(device="cpu", threads=1), seconds=0.2)
    assert list(speeds) == ["pretrain-64", "pretrain-128"] and min(speeds.values()) > 0
    run = Run("toy", {}, RunConfig(), Store(str(tmp_path / "store")), "plan")
    run.stages = [StageRecord(name, "pretrain", "run", "never made") for name in speeds]
    made = with_budget(run, asked, 300, Calibration(speeds))
    assert made == budget(asked, 300, None)
    for record, phase in zip(run.stages, made.phases, strict=True):
        assert record.figures["seconds"] == pytest.approx(START + phase.tokens / speeds[record.name], abs=0.1)
        assert (record.figures["seconds_from"], record.figures["flops"]) == ("probe", phase.flops)


def test_a_probe_measures_what_extract_and_clean_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of each page is text, and half of the text is prose that no rule drops; the sample finds both."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    folder = tmp_path / "pages"
    folder.mkdir()
    for number in range(40):
        blocks = paragraphs(number, count=6) if number % 2 else ["Buy now and click here. " * 12] * 6
        body = "".join(f"<p>{block}</p>" for block in blocks)
        script = "x" * (3 * sum(map(len, blocks)))
        page = f"<html><body><script>{script}</script><article><h1>A page</h1>{body}</article></body></html>"
        (folder / f"{number:02d}.html").write_text(page)
    source = Source(name="mine", kind="html", path=str(folder))
    listed, _ = resolve(source, tmp_path / "sources")
    found = probe_curation({"extract": {"sources": [source.model_dump()]}, "clean": {}}, [listed])
    assert found["extract"].kept == pytest.approx(0.25, abs=0.05)
    assert found["clean"].kept == pytest.approx(0.5, abs=0.15)
    assert all(rate.speed > 0 and rate.written > 0 for rate in found.values())
    assert not list(tmp_path.glob("tokenmill-*"))
