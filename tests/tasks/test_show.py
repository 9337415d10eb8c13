"""Pages in the Prefect UI: one of each stage and run, written over while it works, and never a reason to fail."""

import base64
import re
from typing import Any

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from tasks.curves import Curves
from tasks.progress import PAGE_SECONDS, Display
from tasks.show import Live, show_page
from tests.tasks.conftest import Road


def _pages(key: str) -> list[str]:
    """Every version of a page, the newest first."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
    return [str(page.data) for page in sorted(found, key=lambda page: page.created, reverse=True)]


@pytest.mark.usefixtures("prefect_api")
def test_progress_and_result_are_one_page_of_each_run():
    """Lines of progress replace each other, the result replaces them; a second run has a page of its own."""

    def work(last: str) -> None:
        live = Live("toy-progress", "never made")
        for number in range(3):
            live.say(f"line {number}")
            live.page(f"{number}/3 documents", Curves())
        (middle,) = [page for page in _pages("toy-progress") if "result" not in page]
        assert "line 0" in middle and "line 2" in middle and "never made" in middle
        assert "2/3 documents" in middle and "1/3 documents" not in middle
        show_page("toy-progress", lambda: last)

    for number in (1, 2):
        flow(name="toy")(lambda last=f"result {number}": task(name="toy-progress")(work)(last))()
    assert _pages("toy-progress") == ["result 2", "result 1"]


@pytest.mark.usefixtures("prefect_api")
def test_the_page_of_a_working_stage_has_its_loss_and_its_speed():
    """The plot of all steps so far, drawn anew; beside it the newest line with speed and time left."""
    plots: list[str] = []

    def work() -> None:
        live, now = Live("toy-loss", "never made"), [0.0]
        with Display("toy-loss", live.say, live.page, clock=lambda: now[0]) as display:
            for step in range(1, 5):
                now[0] += PAGE_SECONDS
                text = f"loss {4 - step / 2:.3f}, 1,000 tokens/s, MFU 41.0%"
                tokens = {"unit": "tokens", "done": step * 1000, "total": 9000, "text": text}
                display.show(tokens | {"values": {"loss": 4 - step / 2}})
                (page,) = _pages("toy-loss")
                assert f"At work: toy-loss: {step},000/9,000 tokens {text}" in page
                assert ("about 0:02:30 left" in page) == (step == 4)
                plots.extend(re.findall(r"!\[loss\]\(data:image/svg\+xml;base64,([^)]+)\)", page))

    flow(name="toy")(lambda: task(name="toy-loss")(work)())()
    drawn = [base64.b64decode(plot).decode() for plot in plots]
    assert len(set(drawn)) == 4 and all("<svg" in svg and "tokens" in svg and "loss so far" in svg for svg in drawn)


def test_the_page_of_a_stage_has_digests_of_what_it_read_and_made(road: Road):
    """Inputs and outputs stand there by part, with the digests that enter keys."""
    run = road()
    seed, sort = (record.manifest for record in run.stages)
    page = _pages("sort")[0]
    read, made = seed.parts["numbers"].digest[:12], sort.parts["sorted"].digest[:12]
    assert f"| numbers | numbers | `{read}` |" in page
    assert f"| sorted | 2 | {sum(file.size for file in sort.parts['sorted'].files)} bytes | `{made}` |" in page


def test_a_server_that_is_away_fails_no_page(caplog: pytest.LogCaptureFixture):
    """Without an answer there is a warning, and the stage goes on."""
    away: Any = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(away):
        show_page("toy-away", lambda: "text")
    assert "toy-away: its page could not be shown" in caplog.text
