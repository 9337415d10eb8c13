"""Verifiers: right answers pass, wrong and hedged ones do not, nothing that a model writes raises."""

import json
from itertools import pairwise
from typing import Any

import pytest

from data_curation.checkers import check_of
from data_curation.exercises import FAMILIES, generate
from data_curation.settings import StageError
from training.verifiers import verify

WORKED = "She has 3 bags of 24, so 3 * 24 = <<3*24=72>>72 marbles.\n#### 72"


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
        ("final_number", "72", WORKED, True),
        ("final_number", "24", WORKED, False),
        ("final_number", "72", "#### 24\nNo.\n#### 72", True),
        ("final_number", "72", "#### 72 marbles in 3 bags", True),
        ("final_number", "72", "#### Step 1\n3 bags of 24 make 72.", True),  # a heading of Markdown
        ("final_number", "72", "It is 72, not 71", False),
        ("final_number", "1,234.50", "That costs $1234.5.", True),
        ("final_number", "1234", "$1,234", True),
        ("final_number", "$-5", "It falls to -$5.", True),
        ("final_number", "-5", "It falls to \u22125", True),
        ("final_number", "5", "-5", False),
        ("final_number", "3", "10-3", True),  # no minus of its own
        ("final_number", "5", ".5", False),
        ("final_number", "3", "1,2,3", True),
        ("final_number", "72", "####", False),
        ("final_number", "72", "", False),
        ("final_number", "72", "9" * 10_000, False),
        ("json", '{"a": 7}', '{ "a":7 }', True),
        ("json", '{"a": 7}', 'Here: {"a": 7}', False),
        ("json", '{"a": 7, "b": [2]}', '{"b": [2.0], "a": 7.0}', True),
        ("json", '{"a": 7}', '{"a": 7, "b": 1}', False),
        ("json", "[1, 2]", "[1]", False),
        ("json", "[1]", "[1.0]", True),
        ("json", "[1]", "[true]", False),  # Python thinks that 1 == True
        ("json", "[false]", "[0]", False),
        ("json", "[1]", '["1"]', False),
        ("json", "[1e400]", "[1e500]", False),  # both are infinite as floats
        ("json", "[0.1]", "[0.10]", True),
        ("json", "[1]", "[NaN]", False),
        ("json", "[1]", "[1e99999999999999999999]", False),
        ("json", "[1]", "[" * 100_000, False),
        ("json", "[1]", "[" * 5000 + "]" * 5000, False),
        ("json", "[1]", "9" * 10_000, False),
    ],
)
def test_a_checker_decides_as_its_name_says(checker: str, expected: str, answer: str, right: bool) -> None:
    """Each planted answer is judged as a person would judge it."""
    assert verify({"family": "any", "checker": checker, "answer": expected}, answer) is right


@pytest.mark.parametrize(
    ("rule", "right", "wrong"),
    [
        ({"words_at_most": 3}, "one two three", "one two three four"),
        ({"words_at_least": 3}, "one two three", "one two"),
        ({"contains": "tea"}, "Tea is hot.", "Coffee is hot."),
        ({"lacks": ","}, "Tea and milk.", "Tea, milk."),
        ({"starts_with": "dear"}, " Dear Sir", "Hello, dear Sir"),
        ({"ends_with": "yours."}, "I am Yours.\n", "Yours. Ann"),
        ({"lowercase": True}, "all small, 7.", "Not small"),
        ({"uppercase": True}, "ALL LARGE, 7.", "NOT ALl"),
        ({"sentences": 2}, 'It costs 3.5. She said "Why?"', "One. Two! Three?"),
        ({"sentences": 2}, "**Wait...** what", "You and I"),
        ({"sentences": 2}, "茶很热。咖啡也是。", "茶很热。"),
        ({"lines": 2}, "one\n\ntwo", "one two"),
        ({"bullets": 2}, "Two:\n- one\n  * two", "-one\n- two"),
        ({"json": True}, '{"a": [1]}', 'It is {"a": [1]}'),
        ({"json": True, "lines": None}, "[1]", "[NaN]"),
    ],
)
def test_each_rule_of_instructions_is_kept_or_not(rule: dict[str, Any], right: str, wrong: str) -> None:
    """An answer that keeps a rule passes, one that breaks it fails, an empty one always; all must hold."""
    task = {"checker": "instructions", "answer": json.dumps([rule])}
    assert verify(task, right) and not verify(task, wrong) and not verify(task, " \n")
    both = {"checker": "instructions", "answer": json.dumps([rule, {"lacks": right.split()[0]}])}
    assert not verify(both, right)


def test_every_reference_answer_passes_and_another_ones_fails() -> None:
    """In each family reference answers satisfy their checker, and answers to tasks of another result fail."""
    for family in FAMILIES:
        made = generate("train", 20, 3, [family])
        for one, other in pairwise(made):
            check_of(one.task)
            assert verify(one.task, one.answer)
            assert verify(one.task, other.answer) == (one.answer == other.answer)


def test_an_unknown_checker_is_an_error_not_a_wrong_answer() -> None:
    """A task whose checker does not exist stops with its name."""
    with pytest.raises(StageError, match="'regex'"):
        verify({"family": "any", "checker": "regex", "answer": "x"}, "x")


@pytest.mark.parametrize("answer", ["7", "[7]", "", "seven", "no number"])
@pytest.mark.parametrize(
    "task",
    [
        {"checker": "number", "answer": "seven"},
        {"checker": "number", "answer": "NaN"},
        {"checker": "number", "answer": 7},
        {"checker": "final_number", "answer": "7 or 8"},
        {"checker": "final_number", "answer": ""},
        {"checker": "json", "answer": "{"},
        {"checker": "json", "answer": "NaN"},
        {"checker": "json", "answer": "[" * 100_000},
        {"checker": "exact"},
        {"checker": "exact", "answer": None},
        *(
            {"checker": "instructions", "answer": json.dumps(rules)}
            for rules in (
                *({}, [], ["lines"], [{}], [{"lines": 1, "json": True}], [{"colour": "red"}], [{"contains": ""}]),
                *([{"lines": 0}], [{"lines": True}], [{"lines": "2"}], [{"json": False}], [{"lacks": 7}]),
            )
        ),
    ],
)
def test_a_task_that_its_checker_cannot_use_is_named(task: dict[str, Any], answer: str) -> None:
    """A bad or missing expected answer stops with the task, whatever is answered, and before anything is."""
    for find in (lambda: verify(task, answer), lambda: check_of(task)):
        with pytest.raises(StageError, match=f"task .*{task['checker']}.*: mend that row") as found:
            find()
        assert len(str(found.value)) < 1000
