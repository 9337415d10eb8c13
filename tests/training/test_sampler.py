"""Guarantees of sampling while a model trains: the answers of its own `generate`, with the weights of the moment."""

from collections.abc import Callable
from copy import deepcopy
from importlib.machinery import ModuleSpec
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, MistralConfig, Qwen3Config

from data_curation.place import Place
from data_curation.settings import ConfigError
from training import sampler
from training.sampler import Sampler, check_engine, engine_arguments
from training.token_graph import TokenGraph, cache_bytes
from training.trainers import arguments

PAD, ENDS = 1, [28, 54]
WIDTH = 9
DEVICES = ["cpu", *["cuda"] * torch.cuda.is_available()]


def model(family: str, device: str = "cpu") -> Any:
    """A small model of random weights, as a trainer has it."""
    torch.manual_seed(3)
    kind = {"llama": LlamaConfig, "qwen3": Qwen3Config, "mistral": MistralConfig}[family]
    config = kind(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, tie_word_embeddings=True, use_cache=False, bos_token_id=0,
        eos_token_id=ENDS, pad_token_id=PAD, max_position_embeddings=256,
    )  # fmt: skip
    made = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return made.to(device).train()


def prompts(rows: int = 5, width: int = WIDTH, device: str = "cpu") -> dict[str, Tensor]:
    """Rows of several lengths, padded on the left."""
    torch.manual_seed(4)
    tokens = torch.randint(3, 61, (rows, width))
    mask = (torch.arange(width) >= torch.arange(rows)[:, None]).long()
    return {"input_ids": tokens.masked_fill(mask == 0, PAD).to(device), "attention_mask": mask.to(device)}


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
    sample = Sampler(made, WIDTH, torch.float32)
    for answer in (sample, lambda **rest: expected(made, given, rest["generation_config"])):
        torch.manual_seed(5)
        config = settings(do_sample=True, top_k=0) if sampled else settings(do_sample=False)
        found.append(answer(**given, generation_config=config))
    assert torch.equal(*found)
    assert any(found[0][:, WIDTH:].eq(end).any() for end in ENDS) and made.config.use_cache is False


@pytest.mark.parametrize("device", DEVICES)
def test_keys_and_values_stay_in_place(device: str) -> None:
    """Prompts of any width up to the longest are answered from the same memory; other numbers of rows get their own."""
    made = model("qwen3", device)
    sample, same, shorter = Sampler(made, WIDTH, torch.float32), settings(do_sample=False), settings(do_sample=False)
    shorter.max_new_tokens = 3
    kept: list[Any] = []
    for rows, width, config in ((5, 9, same), (5, 6, same), (5, 9, same), (3, 7, same), (3, 7, shorter)):
        given = prompts(rows, width, device)
        found = sample(**given, generation_config=config)
        assert torch.equal(found, expected(made, given, deepcopy(config)))
        kept.append(sample.graph)
    assert kept[0] is kept[1] is kept[2] is not kept[3] and kept[3] is not kept[4]
    layers = kept[4].cache.layers
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
    assert held == cache_bytes(sample.copy, 3 * (WIDTH + 3))


def test_every_token_of_a_prompt_sees_one() -> None:
    """Itself where it is padding: kernels of a GPU make no number of a row without any."""
    graph = TokenGraph(model("llama"), 5, WIDTH + 12, settings())
    graph(**prompts())
    graph.seen.zero_()
    assert graph._causal(WIDTH).sum(-1).eq(1).all()


@pytest.mark.parametrize("device", DEVICES)
def test_tokens_are_drawn_as_often_as_the_model_says(device: str) -> None:
    """The second and the fourth of many equal rows, at a temperature, within five standard errors."""
    made, rows = model("llama", device), 20_000
    ids = torch.tensor([[5, 9, 11]], device=device).repeat(rows, 1)
    config = settings(do_sample=True, top_k=0, temperature=1.5)
    torch.manual_seed(6)
    found = Sampler(made, 3, torch.float32)(ids, torch.ones_like(ids), config)
    for column in (4, 6):
        before = found[:, :column]
        going = ~torch.isin(before[:, 3:], torch.tensor(ENDS, device=device)).any(1)
        with torch.no_grad():
            logits = torch.cat([made.eval()(input_ids=part).logits[:, -1] for part in before[going].split(2000)])
        odds = torch.softmax(logits / 1.5, -1)
        seen = torch.nn.functional.one_hot(found[going, column], 61).float()
        off = (seen - odds).sum(0) / (odds * (1 - odds)).sum(0).sqrt()
        assert going.sum() > rows / 2 and off.abs().max() < 5


@pytest.mark.parametrize("why", ["kinds of layers", "window", "rotation", "kernel", "memory"])
def test_what_has_no_graph_is_generated(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows, rotations that follow the length, other kernels of attention, and more keys and values than fit."""
    made, given = model("mistral" if why == "window" else "qwen3"), prompts()
    if why == "memory":
        monkeypatch.setattr(Sampler, "_fits", lambda self, tokens: False)
    elif why == "window":
        made.config.sliding_window = 4
    elif why == "kinds of layers":
        made.config.sliding_window, made.config.layer_types = 4, ["sliding_attention", "full_attention"]
    elif why == "rotation":
        made.config.rope_parameters = made.config.rope_parameters | {"rope_type": "dynamic"}
    else:
        made.set_attn_implementation("eager")
    sample = Sampler(made, WIDTH, torch.float32)
    monkeypatch.setattr(sample.copy, "generate", lambda **rest: rest["generation_config"].max_new_tokens)
    assert sample(**given, generation_config=settings(do_sample=False)) == 12 and sample.graph is None


def test_a_step_of_the_trainer_changes_the_answers() -> None:
    """The copy has the weights that the model has when it is asked, also those that are used twice."""
    made, given = model("qwen3"), prompts()
    sample = Sampler(made, WIDTH, torch.float32)
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
    sample, widths = Sampler(made, WIDTH, torch.float32), list[int]()
    sample.copy.model.register_forward_pre_hook(
        lambda _, args, all: widths.append(all["input_ids"].shape[1]), with_kwargs=True
    )
    sample(**given, generation_config=settings(do_sample=False))
    assert widths[0] == WIDTH and len(widths) > 2 and set(widths[1:]) == {1}


def test_the_copy_is_of_bfloat16_and_rotates_in_float32() -> None:
    """By default; tied weights stay tied, and the model is as it was."""
    made = model("qwen3")
    copy = Sampler(made, WIDTH).copy
    assert {one.dtype for one in copy.parameters()} == {torch.bfloat16}
    assert copy.model.rotary_emb.inv_freq.dtype == torch.float32
    assert copy.lm_head.weight is copy.model.embed_tokens.weight
    assert made.training and all(one.dtype == torch.float32 and one.requires_grad for one in made.parameters())


def test_vllm_needs_a_gpu_and_itself(new_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are said before anything is read; transformers needs neither."""
    place = new_place()
    check_engine("transformers", place)
    with pytest.raises(ConfigError, match=r"\.sampler is vllm, which samples on a GPU only: here is none"):
        check_engine("vllm", place)
    monkeypatch.setattr(sampler, "device_of", lambda place: "cuda")
    monkeypatch.setattr(sampler.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"\.sampler is vllm, which is not installed: take transformers"):
        check_engine("vllm", place)
    monkeypatch.setattr(sampler.importlib.util, "find_spec", lambda name: ModuleSpec(name, None))
    check_engine("vllm", place)


@pytest.mark.parametrize("trainer", ["GRPOConfig", "RLOOConfig"])
def test_trl_takes_what_it_is_told_of_vllm(trainer: str, new_place: Callable[..., Place]) -> None:
    """It samples beside the training, in the memory given, of prompts and answers of the lengths there are."""
    import trl

    kind, place = getattr(trl, trainer), new_place()
    made = arguments(kind, place, **engine_arguments("vllm", 0.4, 96))
    assert made.use_vllm and made.vllm_mode == "colocate"
    assert made.vllm_gpu_memory_utilization == 0.4 and made.vllm_max_model_length == 96
    assert not arguments(kind, place, **engine_arguments("transformers", 0.4, 96)).use_vllm
