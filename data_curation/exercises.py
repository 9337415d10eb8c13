"""Generated tasks with a checkable answer: arithmetic, copying, reversing, sorting, counting, formats.

Which split an exercise belongs to follows from its content alone (the two operands, the set of digits), never from its
wording, its family or the seed: a sum that is held out is held out in every wording, for every seed, and as a
subtraction too; digits that are held out are never copied, sorted or counted in training in any order.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from data_curation.settings import ConfigError

Split = Literal["train", "dev", "test"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
TRIES = 10_000  # draws for one new exercise before its family counts as used up


@dataclass(frozen=True)
class Exercise:
    """One task: what is asked, a reference answer, and the checker (data_curation/checkers.py) that accepts it."""

    family: str
    prompt: str
    answer: str
    checker: str

    @property
    def task(self) -> dict[str, str]:
        """The part that a verifier reads."""
        return {"family": self.family, "checker": self.checker, "answer": self.answer}


@dataclass(frozen=True)
class Draft:
    """One content in all its wordings."""

    content: str
    wordings: tuple[str, ...]
    answer: str
    checker: str


def generate(split: Split, count: int, seed: int, families: Sequence[str] = ()) -> list[Exercise]:
    """`count` different exercises of one split, the families (default: all) in turn; equal arguments, equal list."""
    chosen = list(families) or list(FAMILIES)
    unknown = [name for name in chosen if name not in FAMILIES]
    if unknown:
        raise ConfigError(f"dialogues.families holds {unknown[0]!r}: use some of {', '.join(FAMILIES)}")
    random = Random(f"{seed}:{split}")
    used: set[str] = set()
    made: list[Exercise] = []
    for index in range(count):
        made.append(_new(chosen[index % len(chosen)], split, random, used))
        used.add(made[-1].prompt)
    return made


def split_of(content: str) -> Split:
    """The split that a content belongs to: 80% train, 10% dev, 10% test, by its hash."""
    place = hashlib.sha256(content.encode()).digest()[0]
    return "train" if place < 205 else "dev" if place < 230 else "test"


def _new(family: str, split: Split, random: Random, used: set[str]) -> Exercise:
    for _ in range(TRIES):
        draft = FAMILIES[family](random)
        prompt = random.choice(draft.wordings)
        if split_of(draft.content) == split and prompt not in used:
            return Exercise(family, prompt, draft.answer, draft.checker)
    raise ConfigError(f"dialogues.tasks.{split}: family {family!r} has no more different exercises: ask for fewer")


def _add(random: Random) -> Draft:
    left, right = _operands(random)
    wordings = (f"What is {left} + {right}?", f"{left} + {right} =", f"Add {left} and {right}.")
    return Draft(_pair(left, right), wordings, str(left + right), "number")


def _subtract(random: Random) -> Draft:
    left, right = sorted(_operands(random), reverse=True)
    wordings = (f"What is {left} - {right}?", f"{left} - {right} =", f"Subtract {right} from {left}.")
    return Draft(_pair(left, right), wordings, str(left - right), "number")


def _copy(random: Random) -> Draft:
    digits = _digits(random, 2, 5)
    return Draft(_bag(digits), (f"Repeat: {digits}", f"Say again: {digits}"), digits, "exact")


def _reverse(random: Random) -> Draft:
    digits = _digits(random, 2, 4)
    return Draft(_bag(digits), (f"Reverse: {digits}", f"Write backwards: {digits}"), digits[::-1], "exact")


def _sort(random: Random) -> Draft:
    digits = _digits(random, 2, 4, repeats=False)
    return Draft(_bag(digits), (f"Sort: {digits}", f"Put in order: {digits}"), "".join(sorted(digits)), "exact")


def _largest(random: Random) -> Draft:
    digits = _digits(random, 2, 4, repeats=False)
    return Draft(_bag(digits), (f"Largest digit: {digits}", f"Highest digit in {digits}?"), max(digits), "number")


def _count(random: Random) -> Draft:
    digits = _digits(random, 1, 6)
    return Draft(_bag(digits), (f"How many digits: {digits}", f"Count: {digits}"), str(len(digits)), "number")


def _first(random: Random) -> Draft:
    digits = _digits(random, 2, 4)
    return Draft(_bag(digits), (f"First digit: {digits}", f"What does {digits} start with?"), digits[0], "number")


def _last(random: Random) -> Draft:
    digits = _digits(random, 2, 4)
    return Draft(_bag(digits), (f"Last digit: {digits}", f"What does {digits} end with?"), digits[-1], "number")


def _parity(random: Random) -> Draft:
    number = str(random.randrange(10, 10_000))
    answer = "odd" if int(number) % 2 else "even"
    return Draft(_bag(number), (f"Even or odd: {number}", f"Is {number} even or odd?"), answer, "exact")


def _json(random: Random) -> Draft:
    key, value = random.choice(LETTERS), random.randrange(100)
    answer = json.dumps({key: value})
    return Draft(f"json {key} {value}", (f"JSON: {key} is {value}", f"Write as JSON: {key} = {value}"), answer, "json")


def _list(random: Random) -> Draft:
    digits = _digits(random, 2, 4)
    answer = json.dumps([int(digit) for digit in digits])
    return Draft(_bag(digits), (f"JSON list: {digits}", f"Digits of {digits} as a list"), answer, "json")


FAMILIES: dict[str, Callable[[Random], Draft]] = {
    "add": _add,
    "subtract": _subtract,
    "copy": _copy,
    "reverse": _reverse,
    "sort": _sort,
    "largest": _largest,
    "count": _count,
    "first": _first,
    "last": _last,
    "parity": _parity,
    "json": _json,
    "list": _list,
}


def _operands(random: Random) -> tuple[int, int]:
    """One digit each in half of the cases, up to two digits else."""
    top = random.choice((10, 100))
    return random.randrange(top), random.randrange(top)


def _pair(left: int, right: int) -> str:
    return f"pair {min(left, right)} {max(left, right)}"


def _digits(random: Random, least: int, most: int, repeats: bool = True) -> str:
    length = random.randint(least, most)
    return "".join(random.choices("0123456789", k=length) if repeats else random.sample("0123456789", length))


def _bag(digits: str) -> str:
    """The same digits in any order are one content."""
    return f"digits {''.join(sorted(digits))}"
