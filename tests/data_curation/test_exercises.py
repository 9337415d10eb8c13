"""Exercises: deterministic, different, correct, and split by content whatever the wording."""

import json
import re

import pytest

from data_curation.exercises import FAMILIES, generate
from data_curation.settings import ConfigError

SPLITS = ("train", "dev", "test")


def content(family: str, prompt: str) -> tuple[str, ...]:
    """What an exercise is about, read from its prompt alone: operands or digits without their order."""
    numbers = re.findall(r"[0-9]+", prompt)
    if family in ("add", "subtract"):
        return ("pair", *sorted(numbers))
    if family == "json":
        return ("json", re.findall(r"\b[a-z]\b", prompt)[0], *numbers)
    return ("digits", "".join(sorted("".join(numbers))))


def solved(family: str, prompt: str) -> str:
    """The right answer, worked out independently of the generator."""
    numbers = re.findall(r"[0-9]+", prompt)
    digits = numbers[0]
    if family == "subtract" and prompt.startswith("Subtract"):
        numbers.reverse()
    return {
        "add": lambda: str(int(numbers[0]) + int(numbers[1])),
        "subtract": lambda: str(int(numbers[0]) - int(numbers[1])),
        "copy": lambda: digits,
        "reverse": lambda: "".join(reversed(digits)),
        "sort": lambda: "".join(sorted(digits)),
        "largest": lambda: sorted(digits)[-1],
        "count": lambda: str(len(digits)),
        "first": lambda: digits[0],
        "last": lambda: digits[-1],
        "parity": lambda: ["even", "odd"][int(digits[-1]) % 2],
        "json": lambda: '{"' + re.findall(r"\b[a-z]\b", prompt)[0] + '": ' + digits + "}",
        "list": lambda: "[" + ", ".join(digits) + "]",
    }[family]()


def test_answers_are_right() -> None:
    """Every reference answer of every family equals one that was worked out another way."""
    for family in FAMILIES:
        for one in generate("train", 60, 5, [family]):
            assert one.answer == solved(family, one.prompt), one.prompt


def test_equal_arguments_give_equal_lists_and_seeds_differ() -> None:
    """Generation follows from split, count and seed alone; a longer list begins with the shorter one."""
    assert generate("train", 50, 1) == generate("train", 50, 1)
    assert generate("train", 80, 1)[:50] == generate("train", 50, 1)
    assert generate("train", 50, 1) != generate("train", 50, 2)


def test_no_content_and_no_prompt_is_in_two_splits_for_any_seed() -> None:
    """Operands and digits of dev and test never occur in train, in whatever wording, family, order or seed."""
    found: dict[str, set[tuple[str, ...]]] = {}
    prompts: dict[str, set[str]] = {}
    for split in SPLITS:
        for seed in (0, 1):
            made = generate(split, 2400 if split == "train" else 600, seed)
            found.setdefault(split, set()).update(content(one.family, one.prompt) for one in made)
            prompts.setdefault(split, set()).update(one.prompt for one in made)
    for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not found[one] & found[other]
        assert not prompts[one] & prompts[other]


def test_prompts_are_different_and_families_take_turns() -> None:
    """No prompt comes twice in a list, and every family has its equal share."""
    made = generate("test", 600, 0)
    assert len({one.prompt for one in made}) == 600
    assert {family: sum(one.family == family for one in made) for family in FAMILIES} == dict.fromkeys(FAMILIES, 50)
    assert all(json.dumps(one.task) for one in made)


@pytest.mark.parametrize(
    ("count", "families", "said"),
    [(9, ["sums"], "'sums'"), (5000, ["subtract"], "dialogues.tasks.test: .* ask for fewer")],
)
def test_what_cannot_be_generated_is_said(count: int, families: list[str], said: str) -> None:
    """An unknown family and a number that a family cannot give are configuration errors with a remedy."""
    with pytest.raises(ConfigError, match=said):
        generate("test", count, 0, families)
