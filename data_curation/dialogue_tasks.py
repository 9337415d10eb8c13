"""The verifiable task that a record of a chat source carries, checked before anything is trained on it."""

import json
import re
from typing import Any, cast

from data_curation.checkers import CHECKERS, REPLIES, check_of
from data_curation.settings import StageError
from data_curation.turns import ROLES, Dropped

Task = dict[str, str]
_SOLUTION = re.compile(r"####[^\S\n]*(\S+)\s*\Z")
"""How an answer of GSM8K ends."""
_OTHER_FORMS = ("messages", "conversations", "instruction", "prompt", "chosen")
"""Fields of conversations that are no question with its answer."""


def task_of(raw: dict[str, Any], source: str) -> Task | None:
    """What the record's `task` says, as a verifier reads it; of GSM8K's rows, without one, the number behind `####`.

    A text that is no JSON object is a label of the set's own, as many have under this name, and no task.
    """
    given = raw.get("task")
    if isinstance(given, str) and given.lstrip().startswith("{"):
        given = _parsed(given)
    # A table gives rows without a task an object of nulls.
    if isinstance(given, dict) and any(value is not None for value in cast(dict[str, Any], given).values()):
        return _named(cast(dict[str, Any], given), source)
    return None if any(raw.get(name) is not None for name in _OTHER_FORMS) else _solution(raw, source)


def with_reply(task: Task, messages: list[Any]) -> list[Any]:
    """The messages with an assistant's turn last: where there is none, the expected answer if that is a right reply."""
    last = cast(dict[str, Any], messages[-1]) if messages and isinstance(messages[-1], dict) else {}
    if ROLES.get(str(last.get("role"))) != "user" or task["checker"] not in REPLIES:
        return messages
    return [*messages, {"role": "assistant", "content": task["answer"].strip()}]


def check_reply(task: Task, reply: str) -> None:
    """Refuse a task whose own reference reply is wrong: one of the two is, and a model would learn both."""
    if not check_of(task)(reply):
        raise Dropped("task whose checker refuses its reply")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Dropped("task that is not JSON") from None


def _named(given: dict[str, Any], source: str) -> Task:
    family, checker = given.get("family") or source, given.get("checker")
    if not isinstance(family, str):
        raise Dropped("task whose family is not text")
    if not isinstance(checker, str) or checker not in CHECKERS:
        raise Dropped("task with an unknown checker")
    task = {"family": family, "checker": checker, "answer": _text(given.get("answer"))}
    try:
        check_of(task)
    except StageError:
        raise Dropped("task with an answer that its checker cannot read") from None
    try:
        "".join(task.values()).encode()
    except UnicodeEncodeError:
        raise Dropped("task that is not valid Unicode") from None
    return task


def _text(answer: Any) -> str:
    """The expected answer, which may be written without quotation marks: a number, or the JSON itself."""
    if answer is None:
        raise Dropped("task without an answer")
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False, default=str)


def _solution(raw: dict[str, Any], source: str) -> Task | None:
    asked, answered = raw.get("question"), raw.get("answer")
    found = _SOLUTION.search(answered) if isinstance(asked, str) and isinstance(answered, str) else None
    task = {"family": source, "checker": "final_number", "answer": found[1] if found else ""}
    try:
        check_of(task)
    except StageError:
        return None
    return task
