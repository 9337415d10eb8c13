"""The checkers of verifiable tasks: each reads an expected answer first and then decides about given ones."""

import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, cast

from data_curation.settings import StageError

Check = Callable[[str], bool]
"""Whether an answer is right; nothing that a model writes makes it raise."""
SHOWN = 300
"""Characters of a bad task that its error shows."""
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
# A minus behind a letter, a digit or a bracket is a hyphen or a subtraction ("COVID-19", "10-3").
_WRITTEN = r"\$?(?:(?<![\w)\]])[-\u2212])?\$?(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
_AMOUNT = re.compile(_WRITTEN)
_BEHIND_SIGN = re.compile(rf"[^\S\n]*({_WRITTEN})")
_SENTENCE_END = re.compile(r"(?<=[.!?\u2026])[\"'\u201d\u2019)\]*_]*\s+|(?<=[\u3002\uff01\uff1f])")
_BULLET = re.compile(r"^[^\S\n]*[-*•][^\S\n]+\S", re.MULTILINE)


def check_of(task: Mapping[str, Any]) -> Check:
    """The check of a task ({"family", "checker", "answer"}).

    A checker that does not exist, or an expected answer that it cannot read, is an error of the task: StageError.
    """
    checker = CHECKERS.get(str(task.get("checker")))
    if checker is None:
        raise StageError(f"task.checker is {task.get('checker')!r}: use one of {', '.join(sorted(CHECKERS))}")
    expected = task.get("answer")
    try:
        if not isinstance(expected, str):
            raise ValueError("an expected answer is text")
        return checker(expected)
    except (ValueError, ArithmeticError, RecursionError) as error:
        said = json.dumps(dict(task), default=repr)[:SHOWN]
        raise StageError(f"task {said}: its checker cannot use its answer ({error!r}): mend that row") from error


def exact(expected: str) -> Check:
    """The same text; space around it does not count."""
    wanted = expected.strip()
    return lambda answer: answer.strip() == wanted


def number(expected: str) -> Check:
    """The answer names exactly one number and it is the right one, so that listing guesses does not pay."""
    wanted = _finite(Decimal(expected))

    def check(answer: str) -> bool:
        found = _NUMBER.findall(answer)
        return len(found) == 1 and Decimal(found[0]) == wanted

    return check


def final_number(expected: str) -> Check:
    """The number right behind the last `####` (GSM8K), else the answer's last one, is the right one.

    `$` and commas between thousands do not count.
    """
    if not _AMOUNT.fullmatch(expected.strip()):
        raise ValueError("not a number")
    wanted = _amount(expected.strip())

    def check(answer: str) -> bool:
        marked = _BEHIND_SIGN.match(answer.rpartition("####")[2]) if "####" in answer else None
        found = [marked[1]] if marked else _AMOUNT.findall(answer)
        return bool(found) and _amount(found[-1]) == wanted

    return check


def same_json(expected: str) -> Check:
    """The answer is JSON and nothing else, of equal value: `1` is `1.0`, and neither is `true`."""
    wanted = _json(expected)

    def check(answer: str) -> bool:
        try:
            return _same(_json(answer), wanted)
        except (ValueError, ArithmeticError, RecursionError):
            return False

    return check


def instructions(expected: str) -> Check:
    """The answer is not empty and keeps all the rules of a JSON list such as [{"words_at_most": 50}, {"lacks": ","}].

    Case counts only for `lowercase` and `uppercase`.
    """
    rules = _json(expected)
    if not isinstance(rules, list) or not rules:
        raise ValueError("not a list of rules")
    checks = [_rule(rule) for rule in cast(list[Any], rules)]
    return lambda answer: bool(answer.strip()) and all(check(answer.strip()) for check in checks)


CHECKERS: dict[str, Callable[[str], Check]] = {
    "exact": exact,
    "number": number,
    "final_number": final_number,
    "json": same_json,
    "instructions": instructions,
}
"""Checker's name -> check of an expected answer; ValueError or ArithmeticError where it cannot read that."""
REPLIES = frozenset(CHECKERS) - {"instructions"}
"""Checkers whose expected answer is a right reply itself."""


def _finite(value: Decimal) -> Decimal:
    if not value.is_finite():
        raise ValueError("not a finite number")
    return value


def _amount(written: str) -> Decimal:
    return Decimal(written.replace("\u2212", "-").replace("$", "").replace(",", ""))


# ---- JSON -----------------------------------------------------------------------------------------------------------


def _json(text: str) -> Any:
    """The value of a JSON text; with decimals, so that no number is too large or too fine to compare."""
    return json.loads(text, parse_float=Decimal, parse_constant=_no_json)


def _no_json(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, dict) and isinstance(right, dict):
        mine, yours = cast(dict[str, Any], left), cast(dict[str, Any], right)
        return mine.keys() == yours.keys() and all(_same(value, yours[name]) for name, value in mine.items())
    if isinstance(left, list) and isinstance(right, list):
        one, other = cast(list[Any], left), cast(list[Any], right)
        return len(one) == len(other) and all(map(_same, one, other))
    # Python thinks that 1 == True.
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


# ---- rules ----------------------------------------------------------------------------------------------------------


def _rule(rule: Any) -> Check:
    # A table's rows hold every rule's name, with null for those that are not meant.
    given = [(k, v) for k, v in cast(dict[str, Any], rule).items() if v is not None] if isinstance(rule, dict) else []
    if len(given) != 1:
        raise ValueError("a rule is an object of one name")
    name, value = given[0]
    if name in _COUNTED and isinstance(value, int) and not isinstance(value, bool) and value > 0:
        count, holds = _COUNTED[name]
        return lambda answer: holds(count(answer), value)
    if name in _SAID and isinstance(value, str) and value:
        said, folded = _SAID[name], value.casefold()
        return lambda answer: said(answer.casefold(), folded)
    if name in _SHAPED and value is True:
        return _SHAPED[name]
    raise ValueError(f"no such rule: {name}")


def _words(answer: str) -> int:
    return len(answer.split())


def _sentences(answer: str) -> int:
    """Runs between marks before a space: "3.5" ends no sentence, "Dr. X" does."""
    return sum(any(map(str.isalnum, part)) for part in _SENTENCE_END.split(answer))


def _lines(answer: str) -> int:
    return sum(bool(line.strip()) for line in answer.splitlines())


def _bullets(answer: str) -> int:
    return len(_BULLET.findall(answer))


def _is_json(answer: str) -> bool:
    try:
        _json(answer)
    except (ValueError, ArithmeticError, RecursionError):
        return False
    return True


_COUNTED: dict[str, tuple[Callable[[str], int], Callable[[int, int], bool]]] = {
    "words_at_most": (_words, lambda found, wanted: found <= wanted),
    "words_at_least": (_words, lambda found, wanted: found >= wanted),
    "sentences": (_sentences, lambda found, wanted: found == wanted),
    "lines": (_lines, lambda found, wanted: found == wanted),
    "bullets": (_bullets, lambda found, wanted: found == wanted),
}
_SAID: dict[str, Callable[[str, str], bool]] = {
    "contains": lambda answer, wanted: wanted in answer,
    "lacks": lambda answer, unwanted: unwanted not in answer,
    "starts_with": str.startswith,
    "ends_with": str.endswith,
}
_SHAPED: dict[str, Check] = {"lowercase": str.islower, "uppercase": str.isupper, "json": _is_json}
