"""Guarantees of Triton's kernels around norms: sums, products, rotations and every gradient are those of torch."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.test_decoder import ALONE, DOCUMENTS, batch, by_decoder, model
from training.decoder import Decoder
from training.layout import layout_of
from training.norms import Fusion, norm_product
from training.rotary import Heads, rotated_heads

pytest.importorskip("triton")  # which runs its kernels by numpy where no GPU is, as conftest asks
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def gradients(outputs: Any, inputs: list[Tensor | None]) -> list[Tensor]:
    """The outputs and, for one random gradient of them, those of the inputs."""
    torch.manual_seed(1)
    weights = [torch.randn(one.shape, device=DEVICE) for one in outputs]
    total = sum((one.float() * weight).sum() for one, weight in zip(outputs, weights, strict=True))
    return [*outputs, *torch.autograd.grad(total, [one for one in inputs if one is not None])]


def made(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random numbers that want a gradient."""
    return torch.randn(shape, device=DEVICE).to(dtype).requires_grad_()


def near(found: list[Tensor], expected: list[Tensor], error: float) -> None:
    """Each within a relative error."""
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        assert (one.double() - other.double()).norm() <= error * other.double().norm()


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("size", [32, 40, 300])
@pytest.mark.parametrize("added", [True, False], ids=["sum", "alone"])
def test_sum_norm_and_product_with_their_gradients(dtype: torch.dtype, error: float, size: int, added: bool) -> None:
    """For sizes that are no power of two too, and with more tokens than programs."""
    torch.manual_seed(0)
    inputs = [made(21, size, dtype=dtype), made(21, size, dtype=dtype) if added else None, made(size), made(24, size)]
    sides = [gradients(norm_product(*inputs, 1e-6, way), inputs) for way in ("triton", "compiled")]
    near(*sides, error)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("normed", [True, False], ids=["qwen3", "llama"])
@pytest.mark.parametrize("heads", [(4, 4), (5, 1)])
def test_heads_are_normed_and_rotated_with_their_gradients(
    dtype: torch.dtype, error: float, normed: bool, heads: tuple[int, int]
) -> None:
    """Queries, keys and values, of whole and of shared heads, with and without norms of their own."""
    torch.manual_seed(0)
    shape = Heads(*heads, width=16, epsilon=1e-6)
    angles = torch.randn(21, 8, device=DEVICE)
    norms = [made(16), made(16)] if normed else [None, None]
    inputs = [made(21, (heads[0] + 2 * heads[1]) * 16, dtype=dtype), *norms]
    sides = [
        gradients(rotated_heads(*inputs, angles.cos(), angles.sin(), shape, way), inputs)
        for way in ("triton", "compiled")
    ]
    near(*sides, error)


@pytest.mark.parametrize("documents", [DOCUMENTS, ALONE], ids=["packed", "alone"])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("recompute", ["none", "attention", "full"])
@pytest.mark.parametrize("fusion", ["triton", "quack"])
def test_the_whole_decoder_has_one_loss_and_one_gradient(
    family: str, documents: np.ndarray, recompute: Any, fusion: Any
) -> None:
    """By Triton's kernels as without them, whatever is computed again; quack's own kernels need a GPU."""
    found = by_decoder_on(model(family, 2, True), documents, recompute, fusion)
    near(found, by_decoder(model(family, 2, True), documents), 1e-5)


def by_decoder_on(made: Any, documents: np.ndarray, recompute: Any, fusion: Fusion) -> list[Tensor]:
    """Loss and gradients on the device, back on the CPU."""
    made = made.to(DEVICE)
    tensors = [one.to(DEVICE) for one in batch(documents)]
    decoder = Decoder(made, torch.float32, "sdpa", recompute, compile=False, fusion=fusion)
    layout = layout_of(documents, DEVICE, "sdpa")
    total, _ = decoder(*tensors, layout, torch.tensor(1.0, device=DEVICE))
    return [one.cpu() for one in (total.detach(), *torch.autograd.grad(total, list(made.parameters())))]
