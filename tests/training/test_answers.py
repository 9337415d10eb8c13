"""Answers: the same whatever stands beside them, each told from one that was cut."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from data_curation.artifact import Artifact
from tests.training.test_chat import chat
from training.answers import generate_answers


@pytest.fixture(scope="module")
def tokenizer(chat_tokenizer: Path) -> Any:
    """The project's chat tokenizer in small."""
    return AutoTokenizer.from_pretrained(chat_tokenizer)


def test_answers_do_not_depend_on_batch_or_padding_side(coin_model: Artifact, tokenizer: Any) -> None:
    """Prompts of many lengths give the same greedy answers alone, in one batch and in small ones."""
    model = AutoModelForCausalLM.from_pretrained(Path(coin_model.home) / "model").train()
    prompts = [chat("Add " + "1" * number) for number in range(12)]
    tokenizer.padding_side = "right"
    together = generate_answers(model, tokenizer, prompts, 6)
    assert together == [generate_answers(model, tokenizer, [prompt], 6)[0] for prompt in prompts]
    assert together == generate_answers(model, tokenizer, prompts, 6, batch_size=5)
    assert tokenizer.padding_side == "right"
    assert model.training
    assert generate_answers(model, tokenizer, [], 6) == []


def test_sampling_follows_its_seed_and_leaves_the_random_state_alone(tiny_model: Artifact, tokenizer: Any) -> None:
    """Equal seeds give equal samples, other seeds others; torch's generator goes on as if nothing had been drawn."""
    import torch

    model = AutoModelForCausalLM.from_pretrained(Path(tiny_model.home) / "model")
    prompts = [chat("a")] * 4
    torch.manual_seed(5)
    one, again, other = (
        generate_answers(model, tokenizer, prompts, 8, temperature=1.0, seed=seed) for seed in (1, 1, 2)
    )
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))
    assert one == again != other
    assert len(set(one)) == 4  # repeated prompts are independent samples


def test_an_answer_ends_before_its_stop_token(coin_model: Artifact, tokenizer: Any) -> None:
    """A model that has learned to stop gives the bare answer; other control tokens that it writes would be seen."""
    from tests.training.conftest import coins

    model = AutoModelForCausalLM.from_pretrained(Path(coin_model.home) / "model")
    prompts = [row["messages"][:1] for row in coins(300, 340)]
    answers = [answer.text for answer in generate_answers(model, tokenizer, prompts, 8)]
    assert {answer for answer in answers if len(answer) < 5} <= {"yes", "no"}
    assert all("<|im_end|>" not in answer for answer in answers)


def test_an_answer_that_is_cut_is_told_from_one_that_ended(coin_model: Artifact, tokenizer: Any) -> None:
    """One token is too short to write an answer and to stop: cut there, the same answers end in eight."""
    from tests.training.conftest import coins

    model = AutoModelForCausalLM.from_pretrained(Path(coin_model.home) / "model")
    prompts = [row["messages"][:1] for row in coins(300, 320)]
    assert not any(answer.ended for answer in generate_answers(model, tokenizer, prompts, 1))
    whole = [answer.ended for answer in generate_answers(model, tokenizer, prompts, 8) if answer.text in ("yes", "no")]
    assert whole and all(whole)
