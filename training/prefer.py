"""Direct preference optimisation on verified pairs, measured by the policy alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.place import Place
from data_curation.settings import InputError, Settings, StageError
from training import measures
from training.pair_rows import not_longer, pair_rows, too_long
from training.reward import Scorer, is_fit

if TYPE_CHECKING:
    from training.on_ranks import Work

Pair = dict[str, Any]


class PreferConfig(Settings):
    """Settings of `prefer`."""

    loss_type: Literal["sigmoid", "hinge", "ipo", "robust", "apo_zero", "apo_down", "sigmoid_norm"] = "sigmoid"
    """TRL's name of the preference loss: `sigmoid` is DPO, `sigmoid_norm` its length-normalised form (Tulu 3)."""
    beta: float = Field(default=0.1, gt=0)
    """Pull towards the reference model, the one handed in; `sigmoid_norm` wants about 5, `ipo` its own scale."""
    likelihood: float = Field(default=0.0, ge=0)
    """Weight of the chosen answers' own loss beside the preference loss; keeps their probability from falling."""
    learning_rate: float = Field(default=1e-6, gt=0)
    """Peak of AdamW's learning rate; linear decay after `warmup`."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the train pairs."""
    batch_size: int = Field(default=64, gt=0)
    """Pairs of one optimizer step."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from 0."""
    max_length: int = Field(default=1024, gt=0)
    """Tokens of prompt and answer together; pairs with a longer side are dropped and counted."""
    max_new_tokens: int = Field(default=256, gt=0)
    """Longest greedy answer of the verifier's check, in tokens."""
    test_pairs: int | None = Field(default=2000, ge=0)
    """Held-out pairs measured before and after; none takes all."""
    test_prompts: int | None = Field(default=2000, ge=0)
    """Held-out task prompts of `pairs`, whether or not they made a pair, answered greedily before and after; none takes
    all."""
    seed: int = 0
    """Seed of the order of the pairs."""


@dataclass(frozen=True)
class Held:
    """What the policy is measured on, before and after."""

    pairs: list[Pair]
    tasks: list[Pair]


def prefer(config: PreferConfig, model: Artifact, pairs: Artifact, reward: Artifact, place: Place) -> Counts:
    """Train the policy to prefer chosen answers; part `model`, gates on held-out preference and verifier accuracy."""
    from training.chat import check_contract
    from training.on_ranks import on_ranks

    source = model.folder("model", place.scratch)
    policy, tokenizer = measures.load_policy(source, place)
    digest = check_contract(tokenizer, source)
    counts = Counts()
    train = pair_rows(pairs, "train")
    counts.taken = {"pairs": len(train)}
    test = not_longer(pair_rows(pairs, "test")[: config.test_pairs], tokenizer, config.max_length, counts)
    tasks = pair_rows(pairs, "prompts")[: config.test_prompts]
    held = Held(test, measures.answerable(policy, tokenizer, tasks, config.max_new_tokens, counts, "held-out"))
    if is_fit(reward):
        train = ranked(train, Scorer(reward.folder("model", place.scratch), tokenizer, place), counts)
    before = _measured(config, place, "before", policy, tokenizer, held)
    del policy
    done = place.done("model") or on_ranks(_train, config, _work(config, source, tokenizer, train), place)
    counts.add(done.counts)
    folder = place.folder(done, "model")
    tuned, tokenizer = measures.load_policy(folder, place)
    if check_contract(tokenizer, folder) != digest:
        raise StageError("prefer: the chat template changed during training")
    after = _measured(config, place, "after", tuned, tokenizer, held)
    _report(counts, before, after, held)
    counts.made = {"models": 1}
    return counts


def ranked(rows: list[Pair], scorer: Scorer, counts: Counts) -> list[Pair]:
    """Pairs that nobody judged, their sides in the order of an accepted reward model; the others unchanged.

    A reward model is accepted for its choice among answers to tasks, so it does not overrule preferences of the data.
    """
    prompts = [row["prompt"] for row in rows]
    chosen, rejected = (scorer(prompts, [row[side] for row in rows]) for side in ("chosen", "rejected"))
    turned = [
        not row["task"] and not row.get("given") and b > a for row, a, b in zip(rows, chosen, rejected, strict=True)
    ]
    judged = [float(a > b) for row, a, b in zip(rows, chosen, rejected, strict=True) if row["task"]]
    counts.metrics["reward agrees with verifier"] = measures.mean(judged)
    counts.metrics["pairs turned by reward"] = {"value": sum(turned), "n": len(rows), "standard_error": None}
    return [
        {**row, "chosen": row["rejected"], "rejected": row["chosen"]} if turn else row
        for row, turn in zip(rows, turned, strict=True)
    ]


def encoded(tokenizer: Any, row: Pair) -> dict[str, list[int]]:
    """The columns that TRL trains on: prompt_ids, and per side the answer's ids with one end-of-turn token last."""
    from training.chat import encode

    sides: dict[str, list[int]] = {}
    for side in ("chosen", "rejected"):
        ids, mask = encode(tokenizer, [*row["prompt"], {"role": "assistant", "content": row[side]}])
        start = measures.last_answer(mask).index(1)
        sides |= {f"{side}_ids": ids[start:], "prompt_ids": ids[:start]}
    return sides


def _work(config: PreferConfig, source: Path, tokenizer: Any, rows: list[Pair]) -> "Work":
    from datasets import Dataset

    from training.on_ranks import Work

    fed = [encoded(tokenizer, row) for row in rows]
    longest = [len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) for row in fed]
    usable = [row for row, length in zip(fed, longest, strict=True) if length <= config.max_length]
    if not usable:
        raise InputError(f"prefer.max_length is {config.max_length}: all {len(rows)} pairs are longer; raise it")
    return Work(source, Dataset.from_list(usable), too_long(len(rows) - len(usable)))


def _train(config: PreferConfig, work: "Work", place: Place) -> None:
    from transformers import AutoTokenizer
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    from training.trainers import arguments, batches, curve, first_rank, keep_model, longest_side, train, trainable

    class Encoded(DPOTrainer):
        """DPO on pairs that are tokens already: TRL's own encoding lets typed control tokens through."""

        def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
            return dataset

    tokenizer = AutoTokenizer.from_pretrained(work.source)
    weights = [1.0, config.likelihood] if config.likelihood else None
    options = arguments(
        DPOConfig, place, learning_rate=config.learning_rate, num_train_epochs=config.epochs,
        **batches(config.batch_size, 2 * longest_side(work.rows), place), warmup_steps=config.warmup, logging_steps=1,
        loss_type=[config.loss_type, "sft"] if weights else [config.loss_type], loss_weights=weights, beta=config.beta,
        # One forward pass over the pairs instead of one in every epoch, and no second model in memory.
        precompute_ref_log_probs=True, max_length=config.max_length, seed=config.seed,
    )  # fmt: skip
    trainer = Encoded(
        model=trainable(work.source), args=options, train_dataset=work.rows, processing_class=tokenizer,
    )  # fmt: skip
    train(trainer, work.checkpoint, place)
    if not first_rank():
        return
    history = trainer.state.log_history
    place.plot("loss", "Preference loss", "step", "loss", {"loss": curve(history, "loss")})
    names = ("logps/chosen", "logps/rejected")
    place.plot("logps", "Answers' log-probability", "step", "nats", {name: curve(history, name) for name in names})
    keep_model(trainer.model, tokenizer, work.source, work.counts, place)


def _measured(
    config: PreferConfig, place: Place, name: str, policy: Any, tokenizer: Any, held: Held
) -> dict[str, list[float]]:
    done = place.done(name)
    if done is not None:
        return done.note
    with place.piece(name) as piece:
        prompts, tasks = [row["prompt"] for row in held.tasks], [row["task"] for row in held.tasks]
        piece.piece.note = {
            "preferred": measures.preferred(policy, tokenizer, held.pairs),
            "verified": measures.verified(policy, tokenizer, prompts, tasks, config.max_new_tokens),
        }
    return piece.piece.note


def _report(counts: Counts, before: dict[str, list[float]], after: dict[str, list[float]], held: Held) -> None:
    if not held.pairs:
        counts.warnings.append("no held-out pairs: what prefer did to preferences could not be measured")
    for name, values in (("before", before), ("after", after)):
        counts.metrics[f"preference accuracy {name}"] = measures.mean(values["preferred"])
        counts.metrics[f"verifier accuracy {name}"] = measures.mean(values["verified"])
    preference = measures.difference(after["preferred"], before["preferred"])
    verifier = measures.difference(after["verified"], before["verified"])
    counts.metrics |= {"preference accuracy gained": preference, "verifier accuracy gained": verifier}
    counts.gates += [
        measures.gate("preference accuracy gained, above 0 by 2 standard errors", preference, 0.0, errors=2),
        measures.gate("verifier accuracy gained, at least -2 points", verifier, -0.02),
    ]
