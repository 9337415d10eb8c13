"""Checks of an answer against a task's known result, by the task's named checker."""

from collections.abc import Mapping
from typing import Any

from data_curation.checkers import check_of


def verify(task: Mapping[str, Any], answer: str) -> bool:
    """Whether `answer` solves `task` ({"family", "checker", "answer"}); StageError for a bad task, whatever it is."""
    return check_of(task)(answer)
