"""Guarantees of sampling while a model trains: the answers of its own `generate`, with the weights of the moment."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, Qwen3Config

from training.sampler import Sampler

PAD, ENDS = 1, [28, 54]


def model(family: str) -> Any:
    """A small model of random weights, as a trainer has it."""
    torch.manual_seed(3)
    kind = {"llama": LlamaConfig, "qwen3": Qwen3Config}[family]
    config = kind(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, tie_word_embeddings=True, use_cache=False, bos_token_id=0,
        eos_token_id=ENDS, pad_token_id=PAD, max_position_embeddings=256,
    )  # fmt: skip
    made = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return made.train()


def prompts(rows: int = 5, width: int = 9) -> dict[str, Tensor]:
    """Rows of several lengths, padded on the left."""
    torch.manual_seed(4)
    tokens = torch.randint(3, 61, (rows, width))
    mask = (torch.arange(width) >= torch.arange(rows)[:, None]).long()
    return {"input_ids": tokens.masked_fill(mask == 0, PAD), "attention_mask": mask}


def settings(**given: Any) -> GenerationConfig:
    """Those of TRL."""
    return GenerationConfig(
        max_new_tokens=12, pad_token_id=PAD, bos_token_id=0, eos_token_id=ENDS, disable_compile=True, **given
    )


def expected(made: Any, given: dict[str, Tensor], config: GenerationConfig) -> Tensor:
    """What the model itself answers."""
    config.use_cache = True
    with torch.no_grad():
        return made.eval().generate(**given, generation_config=config)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("sampled", [False, True])
def test_answers_are_those_of_generate(family: str, sampled: bool) -> None:
    """Greedy and sampled; they end where the model ends them."""
    made, given = model(family), prompts()
    found: list[Tensor] = []
    sample = Sampler(made, torch.float32)
    for answer in (sample, lambda **rest: expected(made, given, rest["generation_config"])):
        torch.manual_seed(5)
        config = settings(do_sample=True, top_k=0) if sampled else settings(do_sample=False)
        found.append(answer(**given, generation_config=config))
    assert torch.equal(*found)
    assert any(found[0][:, 9:].eq(end).any() for end in ENDS) and made.config.use_cache is False


def test_a_step_of_the_trainer_changes_the_answers() -> None:
    """The copy has the weights that the model has when it is asked, also those that are used twice."""
    made, given = model("qwen3"), prompts()
    sample = Sampler(made, torch.float32)
    before = sample(**given, generation_config=settings(do_sample=False))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter))
    after = sample(**given, generation_config=settings(do_sample=False))
    assert torch.equal(after, expected(made, given, settings(do_sample=False)))
    assert after.shape != before.shape or not torch.equal(after, before)


def test_a_token_is_read_once() -> None:
    """Keys and values are kept though the model's own configuration says that training does without."""
    made, given = model("llama"), prompts()
    sample, widths = Sampler(made, torch.float32), list[int]()
    sample.copy.model.register_forward_pre_hook(
        lambda _, args, all: widths.append(all["input_ids"].shape[1]), with_kwargs=True
    )
    sample(**given, generation_config=settings(do_sample=False))
    assert widths[0] == 9 and len(widths) > 2 and set(widths[1:]) == {1}


def test_the_copy_is_of_bfloat16_and_rotates_in_float32() -> None:
    """By default; tied weights stay tied, and the model is as it was."""
    made = model("qwen3")
    copy = Sampler(made).copy
    assert {one.dtype for one in copy.parameters()} == {torch.bfloat16}
    assert copy.model.rotary_emb.inv_freq.dtype == torch.float32
    assert copy.lm_head.weight is copy.model.embed_tokens.weight
    assert made.training and all(one.dtype == torch.float32 and one.requires_grad for one in made.parameters())
