"""A Bradley-Terry reward model from pairs, with the verdict whether anything may use it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.place import Piece, Place
from data_curation.settings import InputError, Settings, StageError
from training import measures
from training.pair_rows import conversation, not_longer, pair_rows, too_long

if TYPE_CHECKING:
    from training.on_ranks import Work

Message = dict[str, str]
Row = dict[str, Any]


class RewardConfig(Settings):
    """Settings of `reward`."""

    learning_rate: float = Field(default=1e-5, gt=0)
    """Peak of AdamW's learning rate; linear decay after `warmup`."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the train pairs; reward models overfit within few."""
    batch_size: int = Field(default=64, gt=0)
    """Pairs of one optimizer step."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from 0."""
    center: float = Field(default=0.01, ge=0)
    """Weight of the penalty that keeps the mean reward near 0 (Eisenstein et al. 2023)."""
    margin: float = Field(default=0.0, ge=0)
    """Weight of the difference of given scores (preference records') as the least distance of the two rewards in the
    loss (Llama 2, equation 2); 0: all pairs count alike."""
    max_length: int = Field(default=1024, gt=0)
    """Tokens of prompt and answer together; pairs with a longer side are dropped and counted."""
    best_of: int = Field(default=8, ge=2)
    """Answers sampled per held-out prompt, of which the reward model picks one for the verdict."""
    prompts: int = Field(default=1000, ge=2)
    """Most held-out task prompts of the verdict, whether or not they made a pair."""
    temperature: float = Field(default=1.0, gt=0)
    """Temperature of the verdict's samples."""
    max_new_tokens: int = Field(default=256, gt=0)
    """Longest sampled answer, in tokens."""
    seed: int = 0
    """Seed of the score layer, the order of the pairs and the samples."""


def reward(config: RewardConfig, model: Artifact, pairs: Artifact, place: Place) -> Counts:
    """Train on the train pairs, judge on held-out prompts; parts `model` and `verdict`."""
    from transformers import AutoTokenizer

    from training.chat import check_contract
    from training.model import settle
    from training.on_ranks import on_ranks

    settle(place)
    source = model.folder("model", place.scratch)
    tokenizer = AutoTokenizer.from_pretrained(source)
    digest = check_contract(tokenizer, source)
    train, test = pair_rows(pairs, "train"), pair_rows(pairs, "test")
    tasks = pair_rows(pairs, "prompts")[: config.prompts]
    counts = Counts(taken={"pairs": len(train)})
    done = place.done("model") or on_ranks(_train, config, _work(config, source, tokenizer, train), place)
    counts.add(done.counts)
    folder = place.folder(done, "model")
    if check_contract(tokenizer, folder) != digest:
        raise StageError("reward: the chat template changed during training")
    judged = place.done("verdict") or _judge(config, place, folder, source, test, tasks)
    counts.add(judged.counts)
    counts.made = {"models": 1}
    return counts


def is_fit(reward: Artifact) -> bool:
    """The verdict of a finished `reward` stage: whether later stages may use the model."""
    return bool(reward.read_json("verdict", "verdict.json")["fit"])


class Scorer:
    """Rewards of answers from a reward model's folder."""

    def __init__(self, folder: Path, tokenizer: Any, place: Place) -> None:
        from transformers import AutoModelForSequenceClassification

        from training.trainers import device_of

        self.model: Any = AutoModelForSequenceClassification.from_pretrained(folder).to(device_of(place)).eval()
        self.tokenizer, self.folder = tokenizer, folder

    def __call__(self, prompts: Sequence[list[Message]], answers: Sequence[str], batch: int = 64) -> list[float]:
        """One reward per answer, read at its end-of-turn token."""
        import torch

        ids = [conversation(self.tokenizer, p, a) for p, a in zip(prompts, answers, strict=True)]
        rewards = [0.0] * len(ids)
        for share in measures.by_length(ids, batch):
            width = len(ids[share[0]])
            pad = self.tokenizer.pad_token_id
            tokens = torch.tensor([ids[i] + [pad] * (width - len(ids[i])) for i in share], device=self.model.device)
            seen = torch.tensor(
                [[1] * len(ids[i]) + [0] * (width - len(ids[i])) for i in share], device=self.model.device
            )
            with torch.no_grad():
                found = self.model(input_ids=tokens, attention_mask=seen, use_cache=False).logits[:, 0].float()
            for index, value in zip(share, found.tolist(), strict=True):
                rewards[index] = value
        wrong = next((value for value in rewards if not math.isfinite(value)), None)
        if wrong is not None:
            raise StageError(f"{self.folder}: the reward of an answer is {wrong}: lower reward.learning_rate")
        return rewards


def best_of(rewards: Sequence[float], right: Sequence[float], n: int) -> tuple[list[float], list[float]]:
    """Per prompt: whether the sample with the highest reward (the first of equals) is right; the mean of all n."""
    best, average = list[float](), list[float]()
    for start in range(0, len(rewards), n):
        pick = max(range(start, start + n), key=lambda index: (rewards[index], -index))
        best.append(right[pick])
        average.append(sum(right[start : start + n]) / n)
    return best, average


def calibration(chosen: Sequence[float], rejected: Sequence[float], groups: int = 8) -> list[tuple[float, float]]:
    """Pairs by confidence, in groups of equal size: the agreement that Bradley-Terry predicts, and what it was."""
    judged = sorted((1 / (1 + math.exp(-abs(a - b))), float(a > b)) for a, b in zip(chosen, rejected, strict=True))
    size = max(1, math.ceil(len(judged) / groups))
    shares = [judged[start : start + size] for start in range(0, len(judged), size)]
    return [(sum(p for p, _ in share) / len(share), sum(x for _, x in share) / len(share)) for share in shares]


def _work(config: RewardConfig, source: Path, tokenizer: Any, rows: list[Row]) -> "Work":
    from datasets import Dataset

    from training.on_ranks import Work

    encoded = [_encoded(config, tokenizer, row) for row in rows]
    usable = [row for row in encoded if max(len(row["chosen_ids"]), len(row["rejected_ids"])) <= config.max_length]
    if not usable:
        raise InputError(f"reward.max_length is {config.max_length}: all {len(rows)} pairs are longer; raise it")
    return Work(source, Dataset.from_list(usable), too_long(len(rows) - len(usable)))


def _train(config: RewardConfig, work: "Work", place: Place) -> None:
    from transformers import AutoTokenizer
    from trl.trainer.reward_config import RewardConfig as Arguments
    from trl.trainer.reward_trainer import RewardTrainer

    from training.trainers import arguments, batches, curve, first_rank, keep_model, longest_side, train

    tokenizer = AutoTokenizer.from_pretrained(work.source)
    options = arguments(
        Arguments, place, learning_rate=config.learning_rate, num_train_epochs=config.epochs,
        **batches(config.batch_size, 2 * longest_side(work.rows), place), warmup_steps=config.warmup, logging_steps=1,
        center_rewards_coefficient=config.center or None, max_length=None, seed=config.seed,
    )  # fmt: skip
    trainer = RewardTrainer(
        model=str(work.source), args=options, train_dataset=work.rows, processing_class=tokenizer,
    )  # fmt: skip
    train(trainer, work.checkpoint, place)
    if not first_rank():
        return
    history = trainer.state.log_history
    place.plot("loss", "Reward model", "step", "value", {x: curve(history, x) for x in ("loss", "accuracy")})
    keep_model(trainer.model, tokenizer, work.source, work.counts, place)


def _encoded(config: RewardConfig, tokenizer: Any, row: Row) -> dict[str, Any]:
    """The columns that TRL trains on."""
    ids = {f"{side}_ids": conversation(tokenizer, row["prompt"], row[side]) for side in ("chosen", "rejected")}
    return {**ids, "margin": config.margin * (row["margin"] or 0.0)} if config.margin else ids


def _judge(config: RewardConfig, place: Place, folder: Path, source: Path, test: list[Row], tasks: list[Row]) -> Piece:
    from training.answers import generate_answers

    policy, tokenizer = measures.load_policy(source, place)
    scorer, counts = Scorer(folder, tokenizer, place), Counts()
    test = not_longer(test, tokenizer, config.max_length, counts)
    tasks = measures.answerable(policy, tokenizer, tasks, config.max_new_tokens, counts, "held-out")
    prompts = [row["prompt"] for row in test]
    chosen, rejected = (scorer(prompts, [row[side] for row in test]) for side in ("chosen", "rejected"))
    accuracy = measures.mean([float(a > b) for a, b in zip(chosen, rejected, strict=True)])
    known = calibration(chosen, rejected)
    place.plot(
        "calibration", "Calibration of the reward model", "predicted agreement", "agreement",
        {"held-out pairs": known, "ideal": [(point, point) for point, _ in known]},
    )  # fmt: skip
    n = config.best_of
    asked = [row for row in tasks for _ in range(n)]
    answered = generate_answers(
        policy, tokenizer, [row["prompt"] for row in asked], max_new_tokens=config.max_new_tokens,
        temperature=config.temperature, seed=config.seed + 1,
    ) if asked else []  # fmt: skip
    right = [measures.solved(row["task"], answer) for row, answer in zip(asked, answered, strict=True)]
    rewards = scorer([row["prompt"] for row in asked], [answer.text for answer in answered])
    best, average = best_of(rewards, right, n)
    gain = measures.difference(best, average)
    row = measures.gate(f"best-of-{n} above mean@1 by 2 standard errors", gain, 0.0, errors=2)
    with place.piece("verdict") as piece:
        piece.piece.counts = counts
        counts.metrics["held-out accuracy"] = accuracy
        gaps = [abs(predicted - found) for predicted, found in known]
        counts.metrics["calibration error"] = {
            "value": sum(gaps) / len(gaps) if gaps else None, "n": len(test), "standard_error": None
        }  # fmt: skip
        counts.metrics[f"best-of-{n}"], counts.metrics["mean@1"] = measures.mean(best), measures.mean(average)
        counts.gates.append(row | {"advisory": True})  # unfit is a finding, not a fault of the run
        if not tasks:
            counts.warnings.append("no held-out tasks: the reward model was not measured and counts as unfit")
        elif not row["passed"]:
            counts.warnings.append("the reward model is unfit: no later stage uses it")
        verdict = {
            "fit": row["passed"], "best_of_n": counts.metrics[f"best-of-{n}"]["value"], "n": n,
            "mean_at_1": counts.metrics["mean@1"]["value"], "prompts": len(tasks),
            "standard_error": gain["standard_error"], "accuracy": accuracy["value"],
        }  # fmt: skip
        piece.send_json("verdict", "verdict.json", verdict)
    return piece.piece
