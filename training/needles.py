"""Needles: a number hidden in held-out text, asked for at its end, in contexts of any length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from data_curation.shards import Document
from training import model as models
from training.measures import mean

DEPTHS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Shares of the context before a needle."""
ASKED, AFTER = " The secret number is", ". Remember it."
"""The needle's sentence around its five digits; the question is its beginning (after Mohtashami and Jaggi 2023)."""
SHORTEST = 256
"""Tokens of the shortest context that a finished model is asked in, unless its own is shorter."""


@dataclass(frozen=True)
class Needle:
    """A context with a number in it that its last tokens repeat."""

    tokens: np.ndarray
    first: slice
    """Where the number is predicted at its first place: the tokens before its own."""
    last: slice
    """Where it is predicted at the end."""


def plant(documents: Sequence[Document], tokenizer: Any, number: int, length: int) -> list[Needle]:
    """So many contexts of `length` predicted tokens, the depths in turn; none where a needle has no room."""
    filler = np.concatenate([document.tokens for document in documents]).astype(np.int64)
    asked, after = (np.array(tokenizer.encode(text, add_special_tokens=False)) for text in (ASKED, AFTER))
    draw = np.random.default_rng(0)
    planted: list[Needle] = []
    for trial in range(number):
        value = np.array(tokenizer.encode(f" {draw.integers(10_000, 100_000)}", add_special_tokens=False))
        needle = np.concatenate([asked, value, after])
        room = length + 1 - len(needle) - len(asked) - len(value)
        if room < 1:
            return []
        hay = np.resize(np.roll(filler, -int(draw.integers(len(filler)))), room)
        depth = int(room * DEPTHS[trial % len(DEPTHS)])
        tokens = np.concatenate([hay[:depth], needle, hay[depth:], asked, value])
        starts = (depth + len(asked) - 1, length - len(value))
        planted.append(Needle(tokens, *(slice(start, start + len(value)) for start in starts)))
    return planted


def found(needle: Needle, losses: np.ndarray, hits: np.ndarray) -> tuple[float, float]:
    """Whether all digits are the likeliest at the end, and the nats that they cost less there than at first.

    `losses` and `hits` are those of every prediction in the context.
    """
    gain = losses[needle.first].sum() - losses[needle.last].sum()
    return float(hits[needle.last].all()), float(gain)


def lengths_of(context: int) -> list[int]:
    """Doubling lengths from SHORTEST on, the last of them the model's whole context."""
    doubling = [SHORTEST << power for power in range(context.bit_length())]
    return [*(length for length in doubling if length < context), context]


def by_length(
    model: Any, documents: Sequence[Document], tokenizer: Any, number: int, context: int, room: int
) -> dict[str, dict[str, Any]]:
    """Accuracy and gain of a model with packed attention in contexts of growing length; n counts needles.

    `context` is the longest one, `room` the most tokens of one forward pass; a longer context has one of its own.
    """
    measured: dict[str, dict[str, Any]] = {}
    for length in lengths_of(context):
        pairs = list(_asked(model, plant(documents, tokenizer, number, length), max(1, room // length)))
        if pairs:
            right, gains = zip(*pairs, strict=True)
            measured |= {f"needle_accuracy/length/{length}": mean(right), f"needle_gain/length/{length}": mean(gains)}
    return measured


@torch.inference_mode()
def _asked(model: Any, needles: Sequence[Needle], rows: int) -> Iterator[tuple[float, float]]:
    for start in range(0, len(needles), rows):
        batch = needles[start : start + rows]
        tokens = torch.from_numpy(np.stack([needle.tokens[:-1] for needle in batch])).to(model.device)
        positions = torch.arange(tokens.shape[1], device=model.device).expand(tokens.shape)
        packing = models.Packing.of(np.zeros(tokens.shape, dtype=np.int64), model.device)
        hidden = model.model(
            input_ids=tokens, position_ids=positions, use_cache=False, packing=packing
        ).last_hidden_state
        for needle, states in zip(batch, hidden, strict=True):
            # Only where the number stands: all logits of a long context would not fit into memory.
            (cost, _), (again, hit) = (_predicted(model, needle, states, at) for at in (needle.first, needle.last))
            yield float(hit.all()), float(cost.sum() - again.sum())


def _predicted(model: Any, needle: Needle, states: torch.Tensor, at: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses in nats, and whether the prediction is the likeliest, of the tokens after the places `at`."""
    logits = model.lm_head(states[at]).float()
    labels = torch.from_numpy(needle.tokens[at.start + 1 : at.stop + 1]).to(logits.device)
    return cross_entropy(logits, labels, reduction="none").double(), logits.argmax(-1) == labels
