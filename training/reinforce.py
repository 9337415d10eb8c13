"""Online training on verifiable tasks (GRPO or RLOO), measured from step 0."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.place import Place
from data_curation.settings import Settings, StageError
from training import measures
from training.curriculum import Row, by_family, prompt_order, teachable, usable_tasks
from training.reward import Scorer, is_fit

if TYPE_CHECKING:
    from training.on_ranks import Work


class ReinforceConfig(Settings):
    """Settings of `reinforce`."""

    algorithm: Literal["grpo", "rloo"] = "grpo"
    """GRPO compares a sample with its group's mean in units of its spread; RLOO with the mean of the others, and its
    KL divergence enters the reward."""
    steps: int = Field(default=200, gt=0)
    """Optimizer steps."""
    prompts_per_step: int = Field(default=32, gt=0)
    """Prompts of one optimizer step; few prompts make the gradient follow single tasks."""
    samples: int = Field(default=8, ge=2)
    """Answers sampled per prompt: the group that an answer is compared with."""
    learning_rate: float = Field(default=2e-6, gt=0)
    """Learning rate of AdamW after `warmup`, constant; a model of a million parameters wants 1e-3, of 116 million 5e-6
    (benchmarks/align_gpu.py), a billion 1e-6."""
    warmup: int = Field(default=10, ge=0)
    """Steps in which the learning rate rises from 0."""
    beta: float = Field(default=0.02, gt=0)
    """Weight of the KL divergence from the model handed in."""
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo"] = "dapo"
    """TRL's name of GRPO's loss: how token losses are averaged."""
    scale: Literal["group", "batch", "none"] = "group"
    """What GRPO's advantages are divided by: a group's own standard deviation, the batch's, or nothing."""
    clip: float = Field(default=0.2, gt=0)
    """PPO's clip range of the probability ratio."""
    sampler: Literal["transformers", "vllm"] = "transformers"
    """What samples the answers; `vllm` is for large models on GPUs, and a package of its own (docs/scaling.md)."""
    vllm_memory: float = Field(default=0.3, gt=0, lt=1)
    """Share of a GPU's memory that vLLM takes beside what training needs."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature."""
    max_new_tokens: int = Field(default=256, gt=0)
    """Longest answer, in tokens; one that has not ended by then earns no reward."""
    reward_weight: float = Field(default=0.5, ge=0)
    """Weight of the reward model beside the verifier's 1; used only if its verdict is fit."""
    families: list[str] = Field(default_factory=list)
    """Task families to train on and to measure; none listed: all."""
    easiest: float = Field(default=0.95, ge=0, le=1)
    """Families with a greedy accuracy on `dev` above this are not trained on: their groups earn equal rewards."""
    hardest: float = Field(default=0.05, ge=0, le=1)
    """Families with a greedy accuracy on `dev` below this at step 0 are not trained on, for the same reason."""
    dev_tasks: int = Field(default=400, ge=0)
    """Tasks of `dev` that tell which families are trained on; 0 trains on all."""
    held_out: Literal["dev", "test"] = "test"
    """Part of the dialogues whose tasks are measured at step 0 and at the end; `dev` while settings are chosen."""
    held_out_tasks: int | None = Field(default=1000, ge=0)
    """Tasks of that part, taken in its order; none takes all."""
    seed: int = 0
    """Seed of the order of the prompts and of the sampling."""


def reinforce(config: ReinforceConfig, model: Artifact, dialogues: Artifact, reward: Artifact, place: Place) -> Counts:
    """Train the policy on rewarded samples; part `model`, gate on held-out greedy accuracy against step 0."""
    from training.chat import check_contract
    from training.on_ranks import on_ranks
    from training.sampler import check_engine

    check_engine(config.sampler, place)
    source = model.folder("model", place.scratch)
    policy, tokenizer = measures.load_policy(source, place)
    digest = check_contract(tokenizer, source)
    counts = Counts()
    train, dev, held = usable_tasks(config, policy, tokenizer, dialogues, counts)
    counts.taken = {"tasks": len(train)}
    known = _measured(config, place, "known", policy, tokenizer, dev)
    before = _measured(config, place, "before", policy, tokenizer, held)
    train = teachable(config, train, dev, known, counts)
    del policy
    done = place.done("model") or on_ranks(_train, config, _work(config, source, train, reward, place), place)
    counts.add(done.counts)
    folder = place.folder(done, "model")
    tuned, tokenizer = measures.load_policy(folder, place)
    if check_contract(tokenizer, folder) != digest:
        raise StageError("reinforce: the chat template changed during training")
    after = _measured(config, place, "after", tuned, tokenizer, held)
    _report(counts, held, before, after)
    counts.made = {"models": 1}
    return counts


def verifier_reward(eos_token_id: int) -> Callable[..., list[float]]:
    """TRL's reward function: 1.0 for an answer that ended and that its task's verifier accepts, else 0.0."""
    from training.verifiers import verify

    def verifier(
        completions: list[list[dict[str, str]]], completion_ids: list[list[int]], task: list[str], **_: Any
    ) -> list[float]:
        return [
            float(bool(ids) and ids[-1] == eos_token_id and verify(json.loads(known), answer[-1]["content"]))
            for answer, ids, known in zip(completions, completion_ids, task, strict=True)
        ]

    return verifier


def _work(config: ReinforceConfig, source: Path, rows: list[Row], reward: Artifact, place: Place) -> "Work":
    from datasets import Dataset

    from training.on_ranks import Work

    tasks = [{"prompt": row["messages"][:-1], "task": row["task"]} for row in rows]
    judge = reward.folder("model", place.scratch) if config.reward_weight > 0 and is_fit(reward) else None
    return Work(source, Dataset.from_list(tasks).select(prompt_order(len(tasks), config)), Counts(), judge)


def _train(config: ReinforceConfig, work: "Work", place: Place) -> None:
    from transformers import AutoTokenizer

    from training.sampler import sampled
    from training.trainers import first_rank, keep_model, train, trainable

    tokenizer = AutoTokenizer.from_pretrained(work.source)
    rewards: list[Callable[..., list[float]]] = [verifier_reward(tokenizer.eos_token_id)]
    if work.judge:
        rewards.append(_model_reward(Scorer(work.judge, tokenizer, place)))
    weights = [1.0, config.reward_weight][: len(rewards)]
    longest = max(len(ids) for ids in encode_prompts(tokenizer, list(work.rows["prompt"])))
    trainer = _trainer_class(config.algorithm)(
        model=trainable(work.source), reward_funcs=rewards, args=_options(config, place, weights, longest),
        train_dataset=work.rows, processing_class=tokenizer,
    )  # fmt: skip
    with sampled(trainer.model, config.sampler, longest, place):
        train(trainer, work.checkpoint, place)
    if not first_rank():
        return
    _plots(place, trainer.state.log_history, work.judge is not None)
    last = trainer.state.log_history[-max(2, config.steps // 10) - 1 :]
    for name in ("kl", "entropy", "frac_reward_zero_std", "completions/clipped_ratio"):
        work.counts.metrics[f"{name}, last tenth"] = measures.mean([x[name] for x in last if name in x])
    keep_model(trainer.model, tokenizer, work.source, work.counts, place)


def encode_prompts(tokenizer: Any, prompts: list[list[dict[str, str]]]) -> list[list[int]]:
    """Token ids of each prompt, up to where the assistant begins."""
    from training.chat import encode_all

    known = {json.dumps(prompt): prompt for prompt in prompts}  # a group repeats its prompt
    coded = encode_all(tokenizer, list(known.values()), add_generation_prompt=True)
    ids = {key: found for key, (found, _) in zip(known, coded, strict=True)}
    return [ids[json.dumps(prompt)] for prompt in prompts]


def _trainer_class(algorithm: str) -> type:
    """TRL's trainer, but its prompts are encoded by us: its own encoding lets typed control tokens through."""
    from trl.trainer.grpo_trainer import GRPOTrainer
    from trl.trainer.rloo_trainer import RLOOTrainer

    def encode(self: Any, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return encode_prompts(self.processing_class, prompts), None, {}

    return type("Encoded", (GRPOTrainer if algorithm == "grpo" else RLOOTrainer,), {"_tokenize_prompts": encode})


def _options(config: ReinforceConfig, place: Place, weights: list[float], longest: int) -> Any:
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.rloo_config import RLOOConfig

    from training.sampler import engine_arguments
    from training.trainers import arguments, batches

    grpo = config.algorithm == "grpo"
    own = {"loss_type": config.loss_type, "scale_rewards": config.scale} if grpo else {}
    return arguments(
        GRPOConfig if grpo else RLOOConfig, place, max_steps=config.steps, learning_rate=config.learning_rate,
        lr_scheduler_type="constant_with_warmup", warmup_steps=config.warmup, logging_steps=1,
        # Generation and optimizer step coincide, so every step is on-policy and any step may be resumed from.
        **batches(config.prompts_per_step * config.samples, longest + config.max_new_tokens, place),
        **engine_arguments(config.sampler, config.vllm_memory, longest + config.max_new_tokens),
        num_generations=config.samples,
        beta=config.beta, epsilon=config.clip, **own,
        shuffle_dataset=False, temperature=config.temperature, max_completion_length=config.max_new_tokens,
        reward_weights=weights, seed=config.seed,
    )  # fmt: skip


def _model_reward(scorer: Scorer) -> Callable[..., list[float]]:
    def reward_model(prompts: list[Any], completions: list[list[dict[str, str]]], **_: Any) -> list[float]:
        return scorer(prompts, [answer[-1]["content"] for answer in completions])

    return reward_model


def _plots(place: Place, history: list[dict[str, Any]], fit: bool) -> None:
    from training.trainers import curve

    rewards = {"verifier": curve(history, "rewards/verifier/mean")}
    if fit:
        rewards["reward model"] = curve(history, "rewards/reward_model/mean")
    place.plot("reward", "Reward of samples", "step", "mean", rewards)
    place.plot("kl", "KL from the model handed in", "step", "nats per token", {"kl": curve(history, "kl")})
    place.plot("entropy", "Entropy of the policy", "step", "nats per token", {"entropy": curve(history, "entropy")})
    shares = {"zero-variance groups": "frac_reward_zero_std", "answers cut": "completions/clipped_ratio"}
    place.plot("shares", "Wasted samples", "step", "share", {k: curve(history, v) for k, v in shares.items()})


def _measured(
    config: ReinforceConfig, place: Place, name: str, policy: Any, tokenizer: Any, held: list[Row]
) -> list[float]:
    done = place.done(name)
    if done is not None:
        return done.note["verified"]
    prompts, tasks = [row["messages"][:-1] for row in held], [row["task"] for row in held]
    with place.piece(name) as piece:
        found = measures.verified(policy, tokenizer, prompts, tasks, config.max_new_tokens) if held else []
        piece.piece.note = {"verified": found}
    return piece.piece.note["verified"]


def _report(counts: Counts, held: list[Row], before: list[float], after: list[float]) -> None:
    if not held:
        counts.warnings.append("no held-out tasks: nothing of what reinforce did could be measured")
    gained = measures.difference(after, before)
    counts.metrics |= {
        "greedy accuracy at step 0": measures.mean(before),
        "greedy accuracy at the end": measures.mean(after),
        "greedy accuracy gained": gained,
    }
    for moment, values in (("step 0", before), ("end", after)):
        for family, share in by_family(held, values).items():
            counts.metrics[f"{family}, {moment}"] = measures.mean(share)
    counts.gates.append(measures.gate("greedy accuracy gained, above 0 by 2 standard errors", gained, 0.0, errors=2))
