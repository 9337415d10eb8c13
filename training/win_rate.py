"""Win rate: a model's answers against those of the SFT model, judged by a reward model that was found fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from data_curation.artifact import Artifact
from data_curation.documents import read_rows, write_table
from data_curation.place import PieceWriter, Place
from training.answers import generate_answers
from training.measures import fitting, mean
from training.reward import Scorer, is_fit

ANSWERS = pa.schema(
    [
        ("id", pa.string()),
        ("kind", pa.string()),  # task or chat
        ("answer", pa.string()),
        ("ended", pa.bool_()),  # by the model; else it was cut
        ("reward", pa.float64()),  # none without a fit reward model
    ]
)
KINDS = ("task", "chat")


@dataclass
class HeldoutAnswer:
    """A model's answer to one held-out prompt, and its reward if there is a judge."""

    id: str
    kind: str
    answer: str
    reward: float | None = None
    ended: bool = True
    prompt: Sequence[dict[str, str]] = ()
    """The turns before it; not published, the dialogues have them."""


def answered(model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]], kind: str, most: int) -> list[HeldoutAnswer]:
    """Greedy answers of at most `most` tokens to the prompts of these dialogues that leave room for one."""
    prompts = [row["messages"][:-1] for row in rows]
    fits = fitting(model, tokenizer, prompts, most)
    asked = [(row["id"], prompt) for row, prompt, fit in zip(rows, prompts, fits, strict=True) if fit]
    made = generate_answers(model, tokenizer, [prompt for _, prompt in asked], most)
    return [
        HeldoutAnswer(name, kind, answer.text, ended=answer.ended, prompt=prompt)
        for (name, prompt), answer in zip(asked, made, strict=True)
    ]


def judge(reward: Artifact, tokenizer: Any, answers: Sequence[HeldoutAnswer], place: Place) -> bool:
    """Write the rewards of these answers into them; False, and nothing written, where the reward model is unfit."""
    if not is_fit(reward):
        return False
    scorer = Scorer(reward.folder("model", place.scratch), tokenizer, place)
    rewards = scorer([list(one.prompt) for one in answers], [one.answer for one in answers])
    for answer, value in zip(answers, rewards, strict=True):
        answer.reward = value
    return True


def win_rate(mine: Sequence[HeldoutAnswer], others: Sequence[HeldoutAnswer]) -> dict[str, dict[str, Any]]:
    """By kind of prompt, the share of prompts on which my answer has the higher reward; equal rewards are half a win.

    `win_rate_ties/KIND` is the share of equal ones. Both sides must be judged by one reward model.
    """
    theirs = {answer.id: answer for answer in others}
    found: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        both = [(one, theirs[one.id]) for one in mine if one.kind == kind and one.id in theirs]
        wins = [_win(one, other) for one, other in both]
        if wins:
            found[f"win_rate/{kind}"] = mean(wins)
            found[f"win_rate_ties/{kind}"] = mean([float(value == 0.5) for value in wins])
    return found


def mean_rewards(answers: Sequence[HeldoutAnswer]) -> dict[str, dict[str, Any]]:
    """Mean reward by kind of prompt."""
    by_kind = {kind: [one.reward for one in answers if one.kind == kind and one.reward is not None] for kind in KINDS}
    return {f"reward/{kind}": mean(values) for kind, values in by_kind.items() if values}


def write_answers(piece: PieceWriter, answers: Sequence[HeldoutAnswer]) -> None:
    """Publish the answers as part `answers`."""
    rows = [{name: getattr(answer, name) for name in ANSWERS.names} for answer in answers]
    write_table(piece, "answers", "answers.parquet", rows, ANSWERS)


def read_answers(artifact: Artifact) -> list[HeldoutAnswer]:
    """The answers that another evaluation published."""
    return [HeldoutAnswer(**row) for uri in artifact.uris("answers", ".parquet") for row in read_rows(uri)]


def _win(one: HeldoutAnswer, other: HeldoutAnswer) -> float:
    if one.answer == other.answer:  # its reward may differ in the last bit, by what else was in the batch
        return 0.5
    a, b = one.reward or 0.0, other.reward or 0.0
    return 1.0 if a > b else 0.5 if a == b else 0.0
