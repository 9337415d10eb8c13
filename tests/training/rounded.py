"""Products in 8 bits by torch alone: what the kernels are compared with."""

from typing import Any

import torch
from torch import Tensor

from training.float8 import FORMAT, Rows


def rounded(x: Tensor) -> Tensor:
    """x by torch's own cast, each row by the largest power of two that keeps it below 448."""
    scale = torch.exp2(torch.floor(torch.log2(448 / x.abs().amax(1, keepdim=True).clamp(2**-90))))
    return (x * scale).to(FORMAT).float() / scale


def plain(x: Rows) -> Tensor:
    """The numbers that are meant."""
    return x.values.float() * x.scale[:, None]


def exact_product(a: Rows, b: Rows, dtype: torch.dtype, fast: bool = True) -> Tensor:
    """float8.product, summed in float32."""
    return (plain(a) @ plain(b).T).to(dtype)


class Product(torch.autograd.Function):
    """x @ weight.T of rounded numbers, and both gradients, by float32 products of torch alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:  # noqa: D102
        x, weight = rounded(x), rounded(weight)
        ctx.save_for_backward(x, weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        d_out, (x, weight) = rounded(gradients[0]), ctx.saved_tensors
        return d_out @ weight, d_out.T @ x


class Linear(torch.nn.Linear):
    """A layer's product in 8 bits, for a model of transformers."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: D102
        return Product.apply(input.flatten(0, 1), self.weight).view(*input.shape[:-1], -1)  # type: ignore[union-attr]


def in_8_bits(made: Any) -> Any:
    """The model with such products in its layers."""
    for module in made.model.layers.modules():
        if isinstance(module, torch.nn.Linear):
            module.__class__ = Linear
    return made
