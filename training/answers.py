"""Answers from a model to the prompts of conversations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from training.chat import Messages, encode_all

CPU_ROWS, GPU_ROWS = 64, 512
"""Answers that are written at a time; a GPU takes as long for hundreds as for one."""


@dataclass(frozen=True)
class Answer:
    """What a model answered."""

    text: str
    ended: bool = True
    """Whether the model ended it; else it was cut at `max_new_tokens`."""


def generate_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Messages],
    max_new_tokens: int,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int | None = None,
) -> list[Answer]:
    """The model's answer to each prompt, in order: greedy at temperature 0, else sampled from `seed`.

    Rows are padded on the left by hand, so the tokenizer's padding_side neither matters nor changes. Control tokens
    that the model writes before it stops stay visible in the answer.
    """
    encoded = [ids for ids, _ in encode_all(tokenizer, prompts, add_generation_prompt=True)]
    # Rows of equal length share a batch: least padding, and a fixed order for the random numbers.
    order = sorted(range(len(encoded)), key=lambda index: (-len(encoded[index]), index))
    settings = _generation(tokenizer, max_new_tokens, temperature)
    answers = [Answer("", ended=False)] * len(encoded)
    training = model.training
    model.eval()
    batch_size = batch_size or (GPU_ROWS if model.device.type == "cuda" else CPU_ROWS)
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(seed)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            found = _answer(model, [encoded[row] for row in rows], settings)
            for row, (answer, ended) in zip(rows, found, strict=True):
                answers[row] = Answer(tokenizer.decode(answer, clean_up_tokenization_spaces=False), ended)
    model.train(training)
    return answers


def _answer(model: Any, prompts: list[list[int]], settings: GenerationConfig) -> list[tuple[list[int], bool]]:
    width = max(len(prompt) for prompt in prompts)
    pad = int(settings.pad_token_id or 0)
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts], device=model.device)
    seen = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    made = model.generate(input_ids=ids, attention_mask=seen, generation_config=settings)[:, width:].tolist()
    eos = settings.eos_token_id
    return [(row[: row.index(eos)], True) if eos in row else (row, False) for row in made]


def _generation(tokenizer: Any, max_new_tokens: int, temperature: float) -> GenerationConfig:
    shared = {
        "max_new_tokens": max_new_tokens,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "use_cache": True,
    }
    if temperature == 0.0:
        return GenerationConfig(do_sample=False, **shared)
    return GenerationConfig(do_sample=True, temperature=temperature, top_k=0, top_p=1.0, **shared)
