"""The measures that gates stand on, against values worked out by hand or by a plain forward pass."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from data_curation.artifact import Artifact
from tests.training.conftest import coins
from training import trainers
from training.answers import Answer
from training.measures import (
    answer_logprobs,
    by_length,
    difference,
    gate,
    last_answer,
    mean,
    preferred,
    solved,
    verified,
)


def test_mean_and_its_standard_error() -> None:
    """Sample standard deviation over the root of n; no error below two values."""
    assert mean([1.0, 0.0, 1.0, 0.0]) == {"value": 0.5, "n": 4, "standard_error": pytest.approx(math.sqrt(1 / 12))}
    assert mean([3.0]) == {"value": 3.0, "n": 1, "standard_error": None}
    assert mean([]) == {"value": None, "n": 0, "standard_error": None}


def test_pairs_share_their_luck() -> None:
    """A constant gain has no error, however different the examples are."""
    assert difference([1.0, 5.0, 9.0], [0.0, 4.0, 8.0]) == {"value": 1.0, "n": 3, "standard_error": 0.0}


@pytest.mark.parametrize(
    ("value", "error", "errors", "passed"),
    [
        (0.02, 0.01, 2, True),
        (0.019, 0.01, 2, False),
        (0.0, 0.0, 2, False),
        (None, None, 2, False),
        (0.5, None, 2, False),
        (0.0, None, 0, True),
    ],
)
def test_gates_pass_by_their_margin_alone(value: float | None, error: float | None, errors: int, passed: bool) -> None:
    """Nothing measured, nothing gained and no known error never pass a gate that asks for standard errors."""
    row = gate("g", {"value": value, "n": 5, "standard_error": error}, 0.0, errors=errors)
    assert row == {"gate": "g", "value": value, "standard_error": error, "n": 5, "against": 0.0, "passed": passed}


def test_only_the_last_assistant_turn_is_the_answer() -> None:
    """Earlier assistant turns belong to the prompt."""
    assert last_answer([0, 1, 1, 0, 0, 1, 1]) == [0, 0, 0, 0, 0, 1, 1]
    assert last_answer([0, 0]) == [0, 0]


def test_answer_logprobs_equal_a_plain_forward_pass(tiny_model: Artifact) -> None:
    """Padding and the order of a batch change nothing; the end-of-turn token counts, the prompt does not."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(tiny_model.uri("model"))
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    prompts = [[{"role": "user", "content": "Hi." * (index + 1)}] for index in range(3)]
    answers = ["a", "much longer than that", "b"]
    expected: list[float] = []
    for prompt, answer in zip(prompts, answers, strict=True):
        messages = [*prompt, {"role": "assistant", "content": answer}]
        start = len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"])
        ids = tokenizer.apply_chat_template(messages)["input_ids"]
        assert ids[-1] == tokenizer.eos_token_id
        with torch.no_grad():
            found = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        expected.append(sum(found[at - 1, ids[at]].item() for at in range(start, len(ids))))
    assert answer_logprobs(model, tokenizer, prompts, answers, batch=2) == pytest.approx(expected, abs=1e-3)


def test_batches_hold_no_more_tokens_than_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest first, padding counted; a sequence longer than a pass stands alone, and every one comes once."""
    monkeypatch.setattr(trainers, "PASS_TOKENS", 10)
    sequences = [[0] * length for length in (3, 12, 5, 1, 4, 2, 1)]
    assert list(by_length(sequences, batch=3)) == [[1], [2, 4], [0, 5, 3], [6]]
    assert list(by_length([], batch=3)) == []


def test_an_answer_that_was_cut_solves_nothing() -> None:
    """Whatever stands in it; one that ended is judged by the verifier."""
    task = json.dumps({"family": "f", "checker": "exact", "answer": "yes"})
    answers = (Answer("yes"), Answer("no"), Answer("yes", ended=False))
    assert [solved(task, answer) for answer in answers] == [1.0, 0.0, 0.0]


def test_preference_and_verification_of_a_coin(coin_model: Artifact) -> None:
    """Swapped sides swap every preference; a greedy answer is verified exactly where it is the right one."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from training.answers import generate_answers

    folder = Path(coin_model.uri("model"))
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    rows = coins(0, 20)
    prompts = [row["messages"][:1] for row in rows]
    pairs = [{"prompt": prompt, "chosen": "yes", "rejected": "no"} for prompt in prompts]
    turned = [{"prompt": prompt, "chosen": "no", "rejected": "yes"} for prompt in prompts]
    likelier = preferred(model, tokenizer, pairs)
    assert [1.0 - value for value in likelier] == preferred(model, tokenizer, turned)
    greedy = generate_answers(model, tokenizer, prompts, 4)
    found = verified(model, tokenizer, prompts, [row["task"] for row in rows], 4)
    assert found == [float(answer.ended and answer.text == "yes") for answer in greedy] and any(found)
