"""What a person sees in the Prefect UI while a run goes on: log lines and pages, which never fail a stage."""

import logging
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger
from prefect.runtime import flow_run, task_run

from tasks.curves import Curves
from tasks.page import progress_page, run_page
from tasks.run import Run
from tasks.secrets import clean

log = logging.getLogger("tokenmill")

LINES = 30
"""Lines of progress that the page of a working stage shows."""
PAGES: dict[tuple[str | None, str | None, str], UUID] = {}
"""Flow run, task run and key -> the page that this process has made for them."""


def show_run(run: Run, report: str) -> None:
    """The summary of a run in the Prefect UI."""
    show_page("run-summary", lambda: run_page(run, report))


class Live:
    """A stage at work: its lines of progress are logged, its page shows the last ones and its curves."""

    def __init__(self, name: str, why: str) -> None:
        self.name, self.why = name, why
        self.said: deque[str] = deque(maxlen=LINES)

    def say(self, text: str) -> None:
        """A line for the log."""
        say(text)
        self.said.append(f"{datetime.now(UTC):%H:%M:%S} UTC  {text}")

    def page(self, now: str, curves: Curves) -> None:
        """Write the page over."""
        show_page(self.name, lambda: progress_page(self.name, self.why, now, curves.draw(), self.said))


def show_page(key: str, render: Callable[[], str]) -> None:
    """A page in the Prefect UI, one for each stage of a run; it must never fail a stage, whatever the server does."""
    try:
        _put_page(key, clean(render()))
    except Exception as error:
        log.warning("%s: its page could not be shown: %s", key, clean(str(error)))


def _put_page(key: str, text: str) -> None:
    """Create the page, or write over the one that this run has already: a key's history has one entry a run."""
    place = (flow_run.id, task_run.id, key)
    if place in PAGES:
        with get_client(sync_client=True) as client:
            client.update_artifact(PAGES[place], ArtifactUpdate(data=text))
    else:
        PAGES[place] = cast(UUID, create_markdown_artifact(text, key=key))


def say(text: str, level: int = logging.INFO) -> None:
    """One line for the terminal and, where there is a flow run, for its page."""
    text = clean(text)
    try:
        get_run_logger().log(level, text)
    except MissingContextError:
        log.log(level, text)
