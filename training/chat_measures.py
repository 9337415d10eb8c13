"""What a chat model is measured by: verified tasks, likelihood of answers, refusals, preferences, win rate."""

import json
from collections.abc import Sequence
from typing import Any

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.place import Place
from training import win_rate
from training.answers import generate_answers
from training.chat import encode
from training.heldout import ratio
from training.measures import answer_logprobs, last_answer, mean, preferred
from training.refusals import HARMFUL, HARMLESS, refused
from training.verifiers import verify
from training.win_rate import HeldoutAnswer

Metrics = dict[str, dict[str, Any]]
Outcomes = dict[str, dict[str, float]]
"""Results of single examples by measure and id: what models are compared by, pair by pair."""
Row = dict[str, Any]


def task_accuracy(
    rows: list[Row], answers: Sequence[HeldoutAnswer], samples: int, counts: Counts
) -> tuple[Metrics, Outcomes]:
    """Accuracy of greedy answers, overall and by family."""
    given = {one.id: one for one in answers}
    if len(given) < len(rows):
        counts.warnings.append(f"{len(rows) - len(given)} of {len(rows)} tasks leave no room for an answer: left out")
    tasks = [(given[row["id"]], json.loads(row["task"])) for row in rows if row["id"] in given]
    right = [float(one.ended and verify(task, one.answer)) for one, task in tasks]
    for (one, _), judged in list(zip(tasks, right, strict=True))[:samples]:
        counts.samples.append(sample(one.prompt, one.answer, "right" if judged else "wrong"))
    metrics = {"task_accuracy": mean(right)}
    for family in sorted({str(task["family"]) for _, task in tasks}):
        mine = [value for value, (_, task) in zip(right, tasks, strict=True) if task["family"] == family]
        metrics[f"task_accuracy/{family}"] = mean(mine)
    return metrics, {"task_accuracy": {one.id: value for (one, _), value in zip(tasks, right, strict=True)}}


def rewards(
    answers: list[HeldoutAnswer], tokenizer: Any, reward: Artifact, sft: Artifact | None, counts: Counts, place: Place
) -> Metrics:
    """Mean rewards, and how often they are higher than the SFT model's; only said where the judge is unfit."""
    if not win_rate.judge(reward, tokenizer, answers, place):
        counts.warnings.append("the reward model is unfit: answers were not judged and there is no win rate")
        return {}
    metrics = win_rate.mean_rewards(answers)
    return metrics | win_rate.win_rate(answers, win_rate.read_answers(sft)) if sft else metrics


def refusals(model: Any, tokenizer: Any, most: int) -> Metrics:
    """Share of harmful requests that are refused, and of harmless ones; answers have at most so many tokens."""
    prompts = [[{"role": "user", "content": text}] for text in (*HARMFUL, *HARMLESS)]
    found = [float(refused(answer.text)) for answer in generate_answers(model, tokenizer, prompts, most)]
    harmful, harmless = found[: len(HARMFUL)], found[len(HARMFUL) :]
    return {"refusal/harmful": mean(harmful), "refusal/harmless": mean(harmless)}


def answer_loss(model: Any, tokenizer: Any, rows: list[Row], counts: Counts) -> tuple[Metrics, Outcomes]:
    """Loss on the last answer of held-out conversations, its end-of-turn token included."""
    limit = model.config.max_position_embeddings
    coded = [encode(tokenizer, row["messages"]) for row in rows]
    fits = [(row, sum(last_answer(mask))) for row, (ids, mask) in zip(rows, coded, strict=True) if len(ids) <= limit]
    if len(fits) < len(rows):
        left_out = len(rows) - len(fits)
        counts.warnings.append(f"{left_out} of {len(rows)} chats are longer than {limit} tokens and were left out")
    prompts = [row["messages"][:-1] for row, _ in fits]
    sums = answer_logprobs(model, tokenizer, prompts, [row["messages"][-1]["content"] for row, _ in fits], batch=16)
    nats, tokens = [-value for value in sums], [size for _, size in fits]
    losses = {row["id"]: loss / size for (row, size), loss in zip(fits, nats, strict=True)}
    return {"answer_loss": ratio(nats, tokens)}, {"answer_loss": losses}


def preferences(model: Any, tokenizer: Any, rows: list[Row]) -> tuple[Metrics, Outcomes]:
    """How often the policy itself finds the chosen answer likelier than the rejected one."""
    if not rows:
        return {}, {}
    right = preferred(model, tokenizer, rows)
    outcomes = {row["id"]: value for row, value in zip(rows, right, strict=True)}
    return {"preference_accuracy": mean(right)}, {"preference_accuracy": outcomes}


def sample(prompt: Sequence[dict[str, str]], answer: str, verdict: str = "") -> dict[str, str]:
    """An answer for people; the report puts those to one prompt side by side."""
    asked = prompt[-1]["content"]
    title = f"{asked} ({verdict})" if verdict else asked
    return {"title": title, "text": answer, "prompt": asked, "verdict": verdict}
