"""What a person sees in the Prefect UI while a run goes on: log lines and pages, which never fail a stage."""

import logging
from collections.abc import Callable

from prefect.artifacts import create_markdown_artifact
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from tasks.page import run_page
from tasks.run import Run
from tasks.secrets import clean

log = logging.getLogger("tokenmill")


def show_run(run: Run, report: str) -> None:
    """The summary of a run in the Prefect UI."""
    show_page("run-summary", lambda: run_page(run, report))


def show_page(key: str, render: Callable[[], str]) -> None:
    """A page in the Prefect UI; it must never fail a stage, whatever the server does."""
    try:
        create_markdown_artifact(clean(render()), key=key)
    except Exception as error:
        log.warning("%s: its page could not be shown: %s", key, clean(str(error)))


def say(text: str, level: int = logging.INFO) -> None:
    """One line for the terminal and, where there is a flow run, for its page."""
    text = clean(text)
    try:
        get_run_logger().log(level, text)
    except MissingContextError:
        log.log(level, text)
