"""The probe: the real pretrain stage gives a speed for every phase, and leaves nothing behind."""

from pathlib import Path

import pytest

from data_curation.place import Resources
from tasks.budget import budget
from tasks.plan import with_budget
from tasks.probe import probe
from tasks.run import Run, RunConfig, StageRecord
from tasks.store import Store
from tests.tasks.test_budget import config


def test_a_probe_counts_time_and_money(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every phase is trained for a moment; its seconds in the plan are tokens over the measured speed."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    asked = config((64, 80_000, None), (128, 40_000, None))
    speeds = probe(asked, 300, Resources(device="cpu", threads=1), seconds=0.2)
    assert list(speeds) == ["pretrain-64", "pretrain-128"] and min(speeds.values()) > 0
    run = Run("toy", {}, RunConfig(), Store(str(tmp_path / "store")), "plan")
    run.stages = [StageRecord(name, "pretrain", "run", "never made") for name in speeds]
    made = with_budget(run, asked, 300, speeds)
    assert made == budget(asked, 300, None)
    for record, phase in zip(run.stages, made.phases, strict=True):
        assert record.figures["seconds"] == phase.tokens / speeds[record.name]
        assert (record.figures["seconds_from"], record.figures["flops"]) == ("probe", phase.flops)
