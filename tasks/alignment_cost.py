"""What the stages after pretraining compute, from their settings: tokens, FLOPs and steps of generation."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from data_curation.counts import Counts
from data_curation.dialogues import DialoguesConfig
from data_curation.settings import Settings
from tasks.rates import BATCH, BYTES_PER_TOKEN, LAYER_SECONDS, PAIRED, PROMPT_TOKENS, START, STEP_SECONDS
from training.evaluate import EvaluateConfig
from training.instruct import InstructConfig
from training.pairs import PairsConfig
from training.prefer import PreferConfig
from training.publish import PublishConfig
from training.reinforce import ReinforceConfig
from training.reward import RewardConfig


@dataclass(frozen=True)
class Chats:
    """What `dialogues` makes, or is expected to make."""

    tasks: dict[str, int]
    """Generated tasks by split."""
    conversations: int
    """Of the chat sources, in all splits."""
    bytes: int
    """UTF-8 bytes of these."""
    preferences: Mapping[str, int] = field(default_factory=dict[str, int])
    """Preference records by split, where they are known."""

    @classmethod
    def of(cls, made: Counts) -> "Chats":
        """As a finished stage counted them."""
        number = made.made.get
        tasks = {split: number(f"{split} tasks", 0) for split in ("train", "dev", "test")}
        preferences = {split: number(f"{split} preferences", 0) for split in tasks}
        conversations = sum(number(f"{split} conversations", 0) for split in tasks)
        return cls(tasks, conversations, number("bytes", 0), preferences)

    @classmethod
    def expected(cls, config: DialoguesConfig, conversations: int, size: int) -> "Chats":
        """As the settings ask for them."""
        return cls(config.tasks.model_dump(), conversations, size)

    def tokens(self, tasks: int | None) -> int:
        """Of all conversations and of the first so many train tasks, or all."""
        return int(_least(tasks, self.tasks["train"]) * PROMPT_TOKENS + self.bytes / BYTES_PER_TOKEN)


@dataclass
class Work:
    """What a stage computes; `forward` is the FLOPs of reading one token."""

    forward: float
    context: int = 0
    """Tokens of the longest sequences that the model was trained on."""
    tokens: int = 0
    """Of conversations that are trained on, each once."""
    flops: float = 0.0
    steps: float = 0.0
    """Of generation: tokens that a batch of answers gets, one after the other."""

    def train(self, tokens: float) -> None:
        """Forward and backward: three times what reading takes."""
        self.flops += 3 * self.forward * tokens

    def read(self, tokens: float) -> None:
        """Forward alone."""
        self.flops += self.forward * tokens

    def answer(self, number: float, most: int) -> None:
        """Generate answers of at most so many tokens; they end by themselves, a batch with its last one."""
        self.read(number * (PROMPT_TOKENS + most / 2))
        self.steps += math.ceil(number / BATCH) * most

    def seconds(self, rate: float, layers: int) -> float:
        """On a machine that computes so many FLOPs a second, with a model of so many layers."""
        return START + self.flops / rate + self.steps * (STEP_SECONDS + layers * LAYER_SECONDS)


def work_of(word: str, settings: Mapping[str, Any], road: Mapping[str, Any], chats: Chats, forward: float) -> Work:
    """What a stage with these settings (its section as plain data) computes; `road` holds all sections."""
    kind, describe = _WORK[word]
    phases = road.get("pretrain", {}).get("phases", [])
    work = Work(forward, max((int(phase.get("seq_len", 0)) for phase in phases), default=0))
    try:
        config = kind.model_validate(settings)
    except ValidationError:  # of an earlier release
        config = kind.model_validate(road.get(word, {}))
    describe(config, PairsConfig.model_validate(road.get("pairs", {})), chats, work)
    return work


def _instruct(config: InstructConfig, _: PairsConfig, chats: Chats, work: Work) -> None:
    work.tokens = chats.tokens(config.tasks)
    work.train(work.tokens * config.epochs)
    work.answer(2 * min(config.held_out_tasks, chats.tasks[config.held_out]), config.max_new_tokens)


def _pairs(config: PairsConfig, _: PairsConfig, chats: Chats, work: Work) -> None:
    prompts = _least(config.prompts, chats.tasks["train"]) + config.chat_prompts
    work.answer(prompts * config.samples + _test_prompts(config, chats) * config.test_samples, config.max_new_tokens)


def _reward(config: RewardConfig, pairs: PairsConfig, chats: Chats, work: Work) -> None:
    work.tokens = int(_pairs_made(pairs, chats) * _pair_tokens(pairs, config.max_length))
    work.train(work.tokens * config.epochs)
    work.answer(min(config.prompts, _test_prompts(pairs, chats)) * config.best_of, config.max_new_tokens)


def _prefer(config: PreferConfig, pairs: PairsConfig, chats: Chats, work: Work) -> None:
    work.tokens = int(_pairs_made(pairs, chats) * _pair_tokens(pairs, config.max_length))
    work.train(work.tokens * config.epochs)
    work.read(work.tokens)  # by the reference model
    test = _least(config.test_pairs, _test_pairs(pairs, chats))
    work.read(2 * test * _pair_tokens(pairs, config.max_length))
    work.answer(2 * _least(config.test_prompts, _test_prompts(pairs, chats)), config.max_new_tokens)


def _reinforce(config: ReinforceConfig, _: PairsConfig, chats: Chats, work: Work) -> None:
    answers = config.steps * config.prompts_per_step * config.samples
    work.tokens = int(answers * (PROMPT_TOKENS + config.max_new_tokens / 2))
    work.answer(answers, config.max_new_tokens)
    work.train(work.tokens)
    work.read(2 * work.tokens)  # by the reference model, and by the policy before the step
    work.answer(2 * _least(config.held_out_tasks, chats.tasks[config.held_out]), config.max_new_tokens)


def _evaluate(config: EvaluateConfig, pairs: PairsConfig, chats: Chats, work: Work) -> None:
    work.tokens = config.heldout_tokens
    work.read(config.heldout_tokens)
    work.read(config.needles * 2 * work.context)  # lengths that double up to the context
    work.read(min(config.pairs, _test_pairs(pairs, chats)) * _pair_tokens(pairs, 1 << 30))
    work.answer(min(config.tasks, chats.tasks["test"]), config.max_new_tokens)


def _publish(config: PublishConfig, _: PairsConfig, chats: Chats, work: Work) -> None:
    for _prompt in config.prompts:
        work.answer(1, config.max_new_tokens)


_WORK: dict[str, tuple[type[Settings], Callable[[Any, PairsConfig, Chats, Work], None]]] = {
    "instruct": (InstructConfig, _instruct),
    "pairs": (PairsConfig, _pairs),
    "reward": (RewardConfig, _reward),
    "prefer": (PreferConfig, _prefer),
    "reinforce": (ReinforceConfig, _reinforce),
    "evaluate": (EvaluateConfig, _evaluate),
    "publish": (PublishConfig, _publish),
}
ALIGNMENT = tuple(_WORK)
"""The stages whose work is estimated here."""


def _least(limit: int | None, there: int) -> int:
    return there if limit is None else min(limit, there)


def _pairs_made(config: PairsConfig, chats: Chats) -> float:
    sampled = PAIRED * config.pairs_per_prompt * _least(config.prompts, chats.tasks["train"]) + config.chat_prompts
    return sampled + _least(config.preferences, chats.preferences.get("train", 0))


def _test_pairs(config: PairsConfig, chats: Chats) -> int:
    given = _least(config.test_preferences, chats.preferences.get(config.held_out, 0))
    return int(PAIRED * _test_prompts(config, chats)) + given


def _test_prompts(config: PairsConfig, chats: Chats) -> int:
    return _least(config.test_prompts, chats.tasks[config.held_out])


def _pair_tokens(config: PairsConfig, most: int) -> float:
    """Of both sides, each with its prompt."""
    return 2 * min(most, PROMPT_TOKENS + config.max_new_tokens / 2)
