"""Checks of an answer against a task's known result, by the task's named checker."""

import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from data_curation.settings import StageError

_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


def verify(task: Mapping[str, Any], answer: str) -> bool:
    """Whether `answer` solves `task` ({"family", "checker", "answer"}).

    A checker that does not exist, or an expected answer that it cannot read, is an error of the task: StageError.
    """
    checker = CHECKERS.get(str(task.get("checker")))
    if checker is None:
        raise StageError(f"task.checker is {task.get('checker')!r}: use one of {', '.join(sorted(CHECKERS))}")
    try:
        return checker(str(task["answer"]), answer)
    except (KeyError, ValueError, ArithmeticError) as error:
        said = json.dumps(dict(task), ensure_ascii=False)
        raise StageError(f"task {said}: its checker cannot use its answer ({error!r}): mend that row") from error


def exact(expected: str, answer: str) -> bool:
    """The same text; space around it does not count."""
    return answer.strip() == expected.strip()


def number(expected: str, answer: str) -> bool:
    """The answer names exactly one number and it is the right one, so that listing guesses does not pay."""
    found = _NUMBER.findall(answer)
    return len(found) == 1 and Decimal(found[0]) == Decimal(expected)


def same_json(expected: str, answer: str) -> bool:
    """The answer is JSON and nothing else, of equal value; `1` and `true` differ."""
    try:
        found = json.dumps(json.loads(answer), sort_keys=True)
    except (ValueError, RecursionError):
        return False
    return found == json.dumps(json.loads(expected), sort_keys=True)


CHECKERS: dict[str, Callable[[str, str], bool]] = {"exact": exact, "number": number, "json": same_json}
"""Checker's name -> check(expected, answer)."""
