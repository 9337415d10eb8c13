"""Verifiers: right answers pass, wrong and hedged ones do not, nothing that a model writes raises."""

from itertools import pairwise

import pytest

from data_curation.exercises import FAMILIES, generate
from data_curation.settings import StageError
from training.verifiers import verify


@pytest.mark.parametrize(
    ("checker", "expected", "answer", "right"),
    [
        ("exact", "3 7", " 3 7\n", True),
        ("exact", "3 7", "7 3", False),
        ("exact", "odd", "Odd", False),
        ("number", "12", "The answer is 12.", True),
        ("number", "12", "12.0", True),
        ("number", "-3", "-3", True),
        ("number", "12", "112", False),
        ("number", "12", "11, 12 or 13", False),  # a list of guesses
        ("number", "12", "twelve", False),
        ("number", "12", "", False),
        ("json", '{"a": 7}', '{ "a":7 }', True),
        ("json", '{"a": 7}', 'Here: {"a": 7}', False),
        ("json", "[1]", "[true]", False),  # Python thinks that 1 == True
        ("json", "[1]", "[" * 100_000, False),
        ("json", "[1]", "9" * 10_000, False),
    ],
)
def test_a_checker_decides_as_its_name_says(checker: str, expected: str, answer: str, right: bool) -> None:
    """Each planted answer is judged as a person would judge it."""
    assert verify({"family": "any", "checker": checker, "answer": expected}, answer) is right


def test_every_reference_answer_passes_and_another_ones_fails() -> None:
    """In each family reference answers satisfy their checker, and answers to tasks of another result fail."""
    for family in FAMILIES:
        made = generate("train", 20, 3, [family])
        for one, other in pairwise(made):
            assert verify(one.task, one.answer)
            assert verify(one.task, other.answer) == (one.answer == other.answer)


def test_an_unknown_checker_is_an_error_not_a_wrong_answer() -> None:
    """A task whose checker does not exist stops with its name."""
    with pytest.raises(StageError, match="'regex'"):
        verify({"family": "any", "checker": "regex", "answer": "x"}, "x")


@pytest.mark.parametrize(
    "task",
    [
        {"checker": "number", "answer": "seven"},
        {"checker": "json", "answer": "{"},
        {"checker": "exact"},
    ],
)
def test_a_task_that_its_checker_cannot_use_is_named(task: dict[str, str]) -> None:
    """An expected answer that is no number, no JSON or missing stops with the task, whatever is answered."""
    with pytest.raises(StageError, match=f"task .*{task['checker']}.*: mend that row"):
        verify(task, "[7]" if task["checker"] == "json" else "7")
