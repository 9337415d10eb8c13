"""Guarantees of the decoder: the forward and backward pass of Hugging Face's own classes, documents kept apart."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

from training.decoder import Decoder
from training.layout import layout_of

CPU = torch.device("cpu")
DOCUMENTS = np.array([[0, 0, 0, 0, 0, 1, 1, 1], [0] * 8, [0, 1, 1, 1, 2, 2, 3, 3]])
ALONE = np.zeros((3, 8), dtype=np.int64)


def model(family: str, kv_heads: int, tied: bool) -> Any:
    """A model whose every parameter, norms too, is random."""
    torch.manual_seed(3)
    kind = {"llama": LlamaConfig, "qwen3": Qwen3Config}[family]
    config = kind(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=kv_heads, head_dim=16, tie_word_embeddings=tied, max_position_embeddings=8,
        rope_parameters={"rope_type": "default", "rope_theta": 5_000.0},
    )  # fmt: skip
    made = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return made


def batch(documents: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, labels without the last of each document, positions inside documents."""
    torch.manual_seed(4)
    tokens = torch.randint(0, 61, documents.shape)
    labels = tokens.roll(-1)
    ends = np.diff(documents, axis=1, append=-1) != 0
    labels[torch.from_numpy(ends)] = -100
    starts = np.diff(documents, axis=1, prepend=-1) != 0
    positions = np.arange(8) - np.maximum.accumulate(np.where(starts, np.arange(8), 0), axis=1)
    return tokens, labels, torch.from_numpy(positions)


def by_hugging_face(made: Any, documents: np.ndarray) -> list[Tensor]:
    """Loss and gradients of transformers' forward pass, each document in a batch of its own."""
    tokens, labels, _ = batch(documents)
    total = torch.zeros(())
    for row, line in enumerate(documents):
        for number in np.unique(line):
            at = torch.from_numpy(np.flatnonzero(line == number))
            logits = made(input_ids=tokens[row, at][None]).logits[0]
            total = total + cross_entropy(logits, labels[row, at], ignore_index=-100, reduction="sum")
    return [total.detach(), *torch.autograd.grad(total, list(made.parameters()))]


def by_decoder(made: Any, documents: np.ndarray, recompute: Any = "none", compile: bool = False) -> list[Tensor]:
    """The same by the decoder, all documents at once."""
    tokens, labels, positions = batch(documents)
    decoder = Decoder(made, torch.float32, "sdpa", recompute, compile)
    total, _ = decoder(tokens, labels, positions, layout_of(documents, CPU, "sdpa"), torch.tensor(1.0))
    return [total.detach(), *torch.autograd.grad(total, list(made.parameters()))]


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("documents", [DOCUMENTS, ALONE], ids=["packed", "alone"])
def test_loss_and_gradients_are_those_of_hugging_face(
    family: str, kv_heads: int, tied: bool, documents: np.ndarray
) -> None:
    """Within the rounding of float32, for every parameter, packed documents as if each were alone."""
    made = model(family, kv_heads, tied)
    found, expected = by_decoder(made, documents), by_hugging_face(made, documents)
    assert len(found) == (1 + 3 * (11 if family == "qwen3" else 9) + (2 if tied else 3))
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()


@pytest.mark.parametrize("recompute", ["attention", "full", ["full", "attention", "none"]], ids=str)
def test_recomputation_changes_no_bit(recompute: Any) -> None:
    """What is computed again on the way back is what was computed before."""
    made = model("qwen3", 2, True)
    for one, other in zip(by_decoder(made, DOCUMENTS, recompute), by_decoder(made, DOCUMENTS), strict=True):
        assert torch.equal(one, other)


def test_half_precision_is_as_near_as_autocast() -> None:
    """Products of bfloat16 are no further from float32 than transformers' own under autocast; gradients are float32."""
    made = model("llama", 2, True)
    tokens, labels, positions = batch(ALONE)
    exact = by_hugging_face(made, ALONE)
    decoder = Decoder(made, torch.bfloat16, "sdpa", compile=False)
    total, _ = decoder(tokens, labels, positions, layout_of(ALONE, CPU, "sdpa"), torch.tensor(1.0))
    found = [total.detach(), *torch.autograd.grad(total, list(made.parameters()))]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = made(input_ids=tokens).logits
        total = cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")
    usual = [total.detach(), *torch.autograd.grad(total, list(made.parameters()))]
    errors = [
        sum(float((a - b).square().sum() / b.square().sum()) for a, b in zip(side, exact, strict=True)) ** 0.5
        for side in (found, usual)
    ]
    assert errors[0] <= 1.5 * errors[1]
    assert all(one.dtype == torch.float32 for one in found)
