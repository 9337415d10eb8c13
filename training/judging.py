"""The answers to one prompt as pairs of a chosen and a rejected one, or the reason why there are none."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.answers import Answer
    from training.pairs import PairsConfig


@dataclass
class Judged:
    """The answers that make pairs of one prompt, or the reason why they make none."""

    pairs: list[tuple[str, str]] = field(default_factory=list)
    reason: str = ""


def judge(config: "PairsConfig", row: dict[str, Any], answers: Sequence["Answer"]) -> Judged:
    """The pairs of one prompt's answers, best first, or why there are none."""
    if not answers:
        return Judged(reason="prompt longer than the context")
    reference = row["messages"][-1]["content"]
    if not row["task"]:
        # What was cut in the middle is no answer that the model would have given.
        right, wrong = [reference], [one.text for one in answers if one.ended and one.text != reference]
    else:
        right, wrong = verified(json.loads(row["task"]), answers)
        if config.chosen == "reference" or (config.chosen == "sample-or-reference" and not right):
            right = [reference]
    sides = (_distinct(right), _distinct(wrong))
    if not sides[0]:
        return Judged(reason="no answer ended" if not any(one.ended for one in answers) else "no right answer")
    if not sides[1]:
        return Judged(reason="no wrong answer")
    both = [(good, bad) for good, bad in _crossed(*sides) if good.strip() != bad.strip()]
    kept = [(good, bad) for good, bad in both if good.strip() and bad.strip()]
    if not kept:
        return Judged(reason="empty side" if both else "identical sides")
    return Judged(kept[: config.pairs_per_prompt])


def verified(task: dict[str, Any], answers: Sequence["Answer"]) -> tuple[list[str], list[str]]:
    """Right answers and wrong ones; a right text that was cut is neither: it did not end, and must not be unlearnt."""
    from training.verifiers import verify

    accepted = [(answer, verify(task, answer.text)) for answer in answers]
    return (
        [answer.text for answer, right in accepted if right and answer.ended],
        [answer.text for answer, right in accepted if not right],
    )


def _distinct(answers: Sequence[str]) -> list[str]:
    # In the order of sampling, so that likely answers come first without any tie to break.
    return list(dict.fromkeys(answers))


def _crossed(right: Sequence[str], wrong: Sequence[str]) -> list[tuple[str, str]]:
    # Diagonals of the table right x wrong: new answers on both sides for as long as there are any.
    return [(right[i], wrong[(i + shift) % len(wrong)]) for shift in range(len(wrong)) for i in range(len(right))]
