"""What an aligned model is measured by: means with standard errors, answer log-probabilities, verified answers."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_curation.counts import Counts
from data_curation.place import Place

if TYPE_CHECKING:
    from training.answers import Answer

Message = dict[str, str]
Row = dict[str, Any]


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
    row = {"gate": name, "value": value, "standard_error": error, "n": measured["n"], "against": against}
    return row | {"passed": passed}


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


def prompt_of(row: Row) -> list[Message]:
    """The turns before the answer, of a dialogue or of a row of `pairs`."""
    return row["prompt"] if "prompt" in row else row["messages"][:-1]


def answerable(
    model: Any, tokenizer: Any, rows: Sequence[Row], max_new_tokens: int, counts: Counts, step: str
) -> list[Row]:
    """The rows whose prompts leave room for an answer; the others are counted as dropped in `step`."""
    fits = fitting(model, tokenizer, [prompt_of(row) for row in rows], max_new_tokens)
    left_out = [prompt_of(row) for row, fit in zip(rows, fits, strict=True) if not fit]
    if left_out:
        size = sum(len(turn["content"].encode()) for prompt in left_out for turn in prompt)
        reason = "prompt longer than the context"
        counts.funnel.append({"step": step, "reason": reason, "documents": len(left_out), "bytes": size})
    return [row for row, fit in zip(rows, fits, strict=True) if fit]


def by_length(sequences: Sequence[Sequence[int]], batch: int) -> Iterator[list[int]]:
    """The numbers of these sequences in batches of like lengths, the longest first.

    At most `batch` of them and PASS_TOKENS tokens, padding included, unless one sequence alone has more.
    """
    from training.trainers import PASS_TOKENS

    order = sorted(range(len(sequences)), key=lambda index: -len(sequences[index]))
    while order:
        rows = min(batch, max(1, PASS_TOKENS // max(1, len(sequences[order[0]]))))
        yield order[:rows]
        order = order[rows:]


def answer_logprobs(
    model: Any, tokenizer: Any, prompts: Sequence[list[Message]], answers: Sequence[str], batch: int = 64
) -> list[float]:
    """Log-probability of each answer, its end-of-turn token included, given its prompt: a sum over tokens, in nats."""
    import torch
    from torch.nn.functional import cross_entropy

    from training.chat import encode_all

    conversations = [
        [*prompt, {"role": "assistant", "content": answer}] for prompt, answer in zip(prompts, answers, strict=True)
    ]
    encoded = encode_all(tokenizer, conversations)
    sums = [0.0] * len(encoded)
    model.eval()
    for share in by_length([ids for ids, _ in encoded], batch):
        width = len(encoded[share[0]][0])
        tokens = torch.full((len(share), width), tokenizer.pad_token_id)
        attention = torch.zeros((len(share), width), dtype=torch.long)
        counted = torch.zeros((len(share), width), dtype=torch.bool)
        for row, index in enumerate(share):
            ids, mask = encoded[index]
            tokens[row, : len(ids)] = torch.tensor(ids)
            attention[row, : len(ids)] = 1
            # Only the last turn is the answer; earlier assistant turns belong to the prompt.
            counted[row, : len(ids)] = torch.tensor(last_answer(mask), dtype=torch.bool)
        # Only from the first answer's first token on is anything multiplied with the vocabulary.
        kept = width - int(counted.any(0).int().argmax()) + 1
        tokens, attention, counted = (x.to(model.device) for x in (tokens, attention, counted))
        with torch.no_grad():
            made = model(input_ids=tokens, attention_mask=attention, use_cache=False, logits_to_keep=kept)
        wanted = tokens[:, 1:].masked_fill(~counted[:, 1:], -100)[:, 1 - kept :]
        logits = made.logits[:, :-1].float().flatten(0, 1)
        nats = cross_entropy(logits, wanted.flatten(), reduction="none").view_as(wanted).sum(1)
        for index, value in zip(share, nats.tolist(), strict=True):
            sums[index] = -value
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
    """1.0 for each prompt whose greedy answer ends and is accepted by its task's verifier, else 0.0."""
    from training.answers import generate_answers

    answers = generate_answers(model, tokenizer, list(prompts), max_new_tokens=max_new_tokens)
    return [solved(task, answer) for task, answer in zip(tasks, answers, strict=True)]


def solved(task: str, answer: "Answer") -> float:
    """1.0 for an answer that ended and that the verifier of this task (JSON) accepts, else 0.0.

    What was cut is wrong whatever stands in it, in every figure: a model that never ends gives no answer.
    """
    from training.verifiers import verify

    return float(answer.ended and verify(json.loads(task), answer.text))
