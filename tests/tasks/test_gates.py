"""Gates of stages: which of them end a run whose gates are enforced, and how every one is shown."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from prefect import flow

from data_curation.settings import StageError
from flows.diff import diff
from tasks.page import stage_page
from tasks.report import render, report_data
from tasks.run import Run, RunConfig, running
from tasks.stage import stage
from tasks.store import Store
from tests.tasks.gated import GatedConfig

gated = stage("tests.tasks.gated:gated", version=1)
Judged = Callable[..., Run]


def row(name: str, value: Any, passed: bool, **more: Any) -> dict[str, Any]:
    """A gate against 0.5."""
    return {"gate": name, "value": value, "standard_error": 0.125, "against": 0.5, "passed": passed, **more}


PASSED, FAILED = row("accuracy", 0.75, True), row("fluency", 0.25, False)
UNMEASURED = row("verifiers", None, False) | {"standard_error": None}
UNFIT = row("best-of-8", 0.25, False, advisory=True)
DIVERGED = row("loss", "nan", False)


@pytest.fixture
def judged(prefect_api: str, tmp_path: Path) -> Judged:
    """Run one stage with these gates in a store of the test."""

    def go(mode: Literal["warn", "enforce"], *gates: dict[str, Any]) -> Run:
        settings = RunConfig(store=str(tmp_path), gates=mode, retries=0)
        run = Run("toy", {}, settings, Store(str(tmp_path)), "make")

        def body() -> None:
            with running(run):
                gated(GatedConfig(gates=list(gates)))

        try:
            flow(name="toy")(body)()
        finally:
            run.save("done")
        return run

    return go


def test_a_failed_gate_ends_the_run_where_gates_are_enforced(judged: Judged, caplog: pytest.LogCaptureFixture):
    """Its stage is made and named; with `warn` the run goes on, and the log has value and limit in both modes."""
    run = judged("warn", PASSED, FAILED)
    assert [record.state for record in run.stages] == ["made"]
    said = "gated: gate failed: fluency: 0.25 ± 0.12 against 0.5"
    assert said in caplog.text
    with pytest.raises(StageError, match=r"^gated: gate failed: fluency \(run\.gates is enforce\)$"):
        judged("enforce", FAILED, PASSED)
    assert caplog.text.count(said) >= 2


def test_a_run_that_a_gate_has_ended_does_not_pass_it_as_cached(judged: Judged):
    """Started again, it ends at the same gate; without enforcement the artifact is good."""
    for _ in range(2):
        with pytest.raises(StageError, match="gate failed: fluency"):
            judged("enforce", FAILED)
    assert [record.state for record in judged("warn", FAILED).stages] == ["cached"]


@pytest.mark.parametrize("excused", [UNMEASURED, UNFIT], ids=["not measured", "advisory"])
def test_what_measured_nothing_or_only_advises_ends_no_run(
    judged: Judged, excused: dict[str, Any], caplog: pytest.LogCaptureFixture
):
    """An enforced run goes on and says it; beside one that failed only that one is named as the reason."""
    run = judged("enforce", PASSED, excused)
    assert [record.state for record in run.stages] == ["made"]
    assert f"gate {'not measured' if excused is UNMEASURED else 'failed (advisory)'}: {excused['gate']}" in caplog.text
    with pytest.raises(StageError, match=r"gate failed: fluency \("):
        judged("enforce", FAILED, excused)


def test_a_value_that_is_no_number_is_not_taken_for_unmeasured(judged: Judged):
    """A model that diverged fails its gate."""
    with pytest.raises(StageError, match="gate failed: loss"):
        judged("enforce", DIVERGED)


def test_every_gate_is_shown_with_its_outcome(judged: Judged, capsys: pytest.CaptureFixture[str]):
    """Page, report for people, report for programs and comparison of runs have the four words."""
    run = judged("warn", PASSED, FAILED, UNMEASURED, UNFIT)
    words = ["passed", "failed", "not measured", "failed (advisory)"]
    page = stage_page(run.stages[0], run)
    assert "| verifiers |  | 0.5 | not measured |" in page and "| fluency | 0.25 ± 0.12 | 0.5 | **FAILED** |" in page
    assert "| best-of-8 | 0.25 ± 0.12 | 0.5 | failed (advisory) |" in page
    data = report_data(run, "completed", "")
    assert [gate["outcome"] for gate in data["gates"]] == words
    html = render(run, data).decode()
    assert html.count('<span class="failed">failed</span>') == 1
    assert html.count("<td>not measured</td>") == html.count("<td>failed (advisory)</td>") == 1
    diff(run.store, argparse.Namespace(left=run.id, right=run.id, all=True, json=False))
    told = capsys.readouterr().out
    assert "0.25 ± 0.12 FAILED" in told and "0.25 ± 0.12 failed (advisory)" in told and "0.75 ± 0.12 passed" in told
    assert told.count("not measured") == 2
