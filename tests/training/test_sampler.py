"""Guarantees of sampling while a model trains: the answers of its own `generate`, with the weights of the moment."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, CompileConfig, GenerationConfig, LlamaConfig, Qwen3Config, StaticCache

from training.sampler import Sampler, cache_bytes

PAD, ENDS = 1, [28, 54]


def model(family: str, **given: Any) -> Any:
    """A small model of random weights, as a trainer has it."""
    torch.manual_seed(3)
    kind = {"llama": LlamaConfig, "qwen3": Qwen3Config}[family]
    config = kind(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, tie_word_embeddings=True, use_cache=False, bos_token_id=0,
        eos_token_id=ENDS, pad_token_id=PAD, **{"max_position_embeddings": 256} | given,
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
@pytest.mark.parametrize("graphs", [False, True])
def test_answers_are_those_of_generate(family: str, sampled: bool, graphs: bool) -> None:
    """Greedy and sampled, in rows that are padded further for a graph; they end where the model ends them."""
    made, given = model(family), prompts()
    found: list[Tensor] = []
    sample = Sampler(made, 20, torch.float32, graphs)
    for answer in (sample, lambda **rest: expected(made, given, rest["generation_config"])):
        torch.manual_seed(5)
        config = settings(do_sample=True, top_k=0) if sampled else settings(do_sample=False)
        found.append(answer(**given, generation_config=config))
    assert torch.equal(*found)
    assert any(found[0][:, 9:].eq(end).any() for end in ENDS) and made.config.use_cache is False


def test_a_step_of_the_trainer_changes_the_answers() -> None:
    """The copy has the weights that the model has when it is asked, also those that are used twice."""
    made, given = model("qwen3"), prompts()
    sample = Sampler(made, 20, torch.float32)
    before = sample(**given, generation_config=settings(do_sample=False))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter))
    after = sample(**given, generation_config=settings(do_sample=False))
    assert torch.equal(after, expected(made, given, settings(do_sample=False)))
    assert after.shape != before.shape or not torch.equal(after, before)


def test_prompts_of_all_lengths_share_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and values have the length that the longest needs, of which the estimate of memory knows the bytes."""
    made = model("llama")
    sample, caches = Sampler(made, 20, torch.float32), list[StaticCache]()
    sample.compile_config = CompileConfig(dynamic=False, backend="eager")
    sample.compile_config._compile_all_devices = True
    init = StaticCache.__init__
    monkeypatch.setattr(StaticCache, "__init__", lambda self, *a, **all: caches.append(self) or init(self, *a, **all))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for width in (20, 9, 3, 14):
        given, config = prompts(2, width), settings(do_sample=False)
        before = config.to_dict()
        found = sample(**given, generation_config=config)
        assert config.to_dict() == before
        assert torch.equal(found, expected(made, given, settings(do_sample=False)))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    size = cache_bytes(made, 2 * (20 + 12))
    for one in caches:
        assert sum(layer.keys.nbytes + layer.values.nbytes for layer in one.layers) == size


def test_the_copy_is_of_bfloat16_and_rotates_in_float32() -> None:
    """By default; tied weights stay tied, and the model is as it was."""
    made = model("qwen3")
    copy = Sampler(made, 20).copy
    assert {one.dtype for one in copy.parameters()} == {torch.bfloat16}
    assert copy.model.rotary_emb.inv_freq.dtype == torch.float32
    assert copy.lm_head.weight is copy.model.embed_tokens.weight
    assert made.training and all(one.dtype == torch.float32 and one.requires_grad for one in made.parameters())


def test_keys_and_values_that_would_fill_the_memory_grow_with_the_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer is lost for want of memory that it would not have used."""
    made, given = model("qwen3"), prompts()
    sample = Sampler(made, 20, torch.float32)
    monkeypatch.setattr(Sampler, "_fits", lambda *_: False)
    monkeypatch.setattr(StaticCache, "__init__", lambda *_, **__: pytest.fail("no such cache was asked for"))
    found = sample(**given, generation_config=settings(do_sample=False))
    assert torch.equal(found, expected(made, given, settings(do_sample=False)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_graphs_of_bfloat16_answer_alike() -> None:
    """Within its rounding: hardly any greedy answer differs from the eager one's, and the graph is made once."""
    made, given = model("qwen3").cuda(), {name: one.cuda() for name, one in prompts(64).items()}
    torch._dynamo.utils.counters.clear()
    both, found = [Sampler(made, 20, graphs=one) for one in (True, False)], list[Tensor]()
    for _ in range(2):
        config = settings(do_sample=False, min_new_tokens=12)
        found = [one(**given, generation_config=config) for one in both]
    assert found[0].eq(found[1]).all(1).float().mean() > 0.8
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
