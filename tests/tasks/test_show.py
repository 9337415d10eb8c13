"""Pages in the Prefect UI: one of each stage and run, written over while it works, and never a reason to fail."""

from typing import Any

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from tasks.show import live, show_page
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
        say = live("toy-progress", "never made")
        say("1/3 documents")
        say("2/3 documents")
        (middle,) = [page for page in _pages("toy-progress") if "result" not in page]
        assert "1/3 documents" in middle and "2/3 documents" in middle and "never made" in middle
        show_page("toy-progress", lambda: last)

    for number in (1, 2):
        flow(name="toy")(lambda last=f"result {number}": task(name="toy-progress")(work)(last))()
    assert _pages("toy-progress") == ["result 2", "result 1"]


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
