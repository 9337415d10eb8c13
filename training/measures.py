"""What an aligned model is measured by: means with standard errors, answer log-probabilities, verified answers."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_curation.place import Place

Message = dict[str, str]


def mean(values: Sequence[float]) -> dict[str, Any]:
    """{"value", "n", "standard_error"} of a sample; the error is none below two values."""
    n = len(values)
    if n == 0:
        return {"value": None, "n": 0, "standard_error": None}
    value = sum(values) / n
    error = math.sqrt(sum((x - value) ** 2 for x in values) / (n - 1) / n) if n > 1 else None
    return {"value": value, "n": n, "standard_error": error}


def difference(after: Sequence[float], before: Sequence[float]) -> dict[str, Any]:
    """Mean of the paired differences `after - before`, with the standard error of the pairs (not of two samples)."""
    return mean([a - b for a, b in zip(after, before, strict=True)])


def gate(name: str, measured: dict[str, Any], against: float, errors: float = 0.0) -> dict[str, Any]:
    """A row of Counts.gates: passed when the value exceeds `against` by `errors` standard errors.

    With `errors` = 0 reaching `against` is enough; otherwise a difference of exactly nothing does not pass.
    """
    value, error = measured["value"], measured["standard_error"]
    if value is None or (errors > 0 and error is None):
        passed = False
    else:
        margin = errors * (error or 0.0)
        passed = value >= against + margin and not (errors > 0 and value <= against)
    return {"gate": name, "value": value, "standard_error": error, "against": against, "passed": passed}


def load_policy(folder: Path, place: Place) -> tuple[Any, Any]:
    """Model, on the place's device and in evaluation mode, and tokenizer of a model folder; on a GPU in bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from training.model import settle

    device = settle(place)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return model.to(device).eval(), AutoTokenizer.from_pretrained(folder)


def fitting(model: Any, tokenizer: Any, prompts: Sequence[list[Message]], max_new_tokens: int) -> list[bool]:
    """Which prompts leave room in the model's context for an answer of so many tokens."""
    from training.chat import encode_all

    room = model.config.max_position_embeddings - max_new_tokens
    return [len(ids) <= room for ids, _ in encode_all(tokenizer, prompts, add_generation_prompt=True)]


def answer_logprobs(
    model: Any, tokenizer: Any, prompts: Sequence[list[Message]], answers: Sequence[str], batch: int = 64
) -> list[float]:
    """Log-probability of each answer, its end-of-turn token included, given its prompt: a sum over tokens, in nats."""
    import torch
    from torch.nn.functional import log_softmax

    from training.chat import encode_all

    conversations = [
        [*prompt, {"role": "assistant", "content": answer}] for prompt, answer in zip(prompts, answers, strict=True)
    ]
    encoded = encode_all(tokenizer, conversations)
    # By length, so that a batch holds little padding; the sums go back to their places.
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index][0]))
    sums = [0.0] * len(encoded)
    model.eval()
    for start in range(0, len(order), batch):
        share = order[start : start + batch]
        width = max(len(encoded[index][0]) for index in share)
        tokens = torch.full((len(share), width), tokenizer.pad_token_id)
        attention = torch.zeros((len(share), width), dtype=torch.long)
        counted = torch.zeros((len(share), width), dtype=torch.bool)
        for row, index in enumerate(share):
            ids, mask = encoded[index]
            tokens[row, : len(ids)] = torch.tensor(ids)
            attention[row, : len(ids)] = 1
            # Only the last turn is the answer; earlier assistant turns belong to the prompt.
            counted[row, : len(ids)] = torch.tensor(last_answer(mask), dtype=torch.bool)
        tokens, attention, counted = (x.to(model.device) for x in (tokens, attention, counted))
        with torch.no_grad():
            logits = model(input_ids=tokens, attention_mask=attention, use_cache=False).logits[:, :-1].float()
        chosen = log_softmax(logits, dim=-1).gather(2, tokens[:, 1:, None]).squeeze(2)
        for index, value in zip(share, (chosen * counted[:, 1:]).sum(1).tolist(), strict=True):
            sums[index] = value
    return sums


def last_answer(mask: Sequence[int | bool]) -> list[int]:
    """The assistant mask, cut down to its last run of ones."""
    kept = [0] * len(mask)
    position = len(mask) - 1
    while position >= 0 and not mask[position]:
        position -= 1
    while position >= 0 and mask[position]:
        kept[position] = 1
        position -= 1
    return kept


def preferred(model: Any, tokenizer: Any, pairs: Sequence[dict[str, Any]]) -> list[float]:
    """1.0 for each pair whose chosen answer the policy itself finds likelier than the rejected one, else 0.0."""
    prompts = [pair["prompt"] for pair in pairs]
    chosen = answer_logprobs(model, tokenizer, prompts, [pair["chosen"] for pair in pairs])
    rejected = answer_logprobs(model, tokenizer, prompts, [pair["rejected"] for pair in pairs])
    return [float(a > b) for a, b in zip(chosen, rejected, strict=True)]


def verified(
    model: Any, tokenizer: Any, prompts: Sequence[list[Message]], tasks: Sequence[str], max_new_tokens: int
) -> list[float]:
    """1.0 for each prompt whose greedy answer its task's verifier accepts, else 0.0."""
    from training.answers import generate_answers
    from training.verifiers import verify

    answers = generate_answers(model, tokenizer, list(prompts), max_new_tokens=max_new_tokens)
    return [float(verify(json.loads(task), answer.text)) for task, answer in zip(tasks, answers, strict=True)]
