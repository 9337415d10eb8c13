"""The second half of a layer: residual sum, norm, SwiGLU and its two products, forward and back.

With `quack` the gate is computed where the product's numbers are still in registers (package quack-kernels, which comes
with FlashAttention-4), on the way back with the gradient of both halves: they never cross the memory on their own.
"""

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from training.norms import Fusion, add_norm, add_norm_back, norm_product


def gated_mlp(
    x: Tensor, delta: Tensor, norm: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor, epsilon: float, fusion: Fusion
) -> tuple[Tensor, Tensor]:
    """`x + delta` and what its norm becomes, [tokens, size]; w_gate and w_up [inner, size], w_down [size, inner]."""
    if fusion == "quack":
        both = torch.stack([w_gate, w_up], 1).flatten(0, 1)  # as its kernels want them: a row of each in turn
        total, _, _, out = _gated_mlp(x, delta, norm, both.to(x.dtype), w_down.to(x.dtype), epsilon)
        return total, out
    x, both = norm_product(x, delta, norm, torch.cat([w_gate, w_up]), epsilon, fusion)
    gate, up = both.chunk(2, -1)
    return x, (silu(gate) * up) @ w_down.to(x.dtype).T


@torch.library.custom_op("tokenmill::gated_mlp", mutates_args=())
def _gated_mlp(
    x: Tensor, delta: Tensor, norm: Tensor, both: Tensor, w_down: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    total, normed = add_norm(x, delta, norm, epsilon)
    halves, inner = _gate(normed, both)
    return total, normed, halves, inner @ w_down.T


@torch.library.custom_op("tokenmill::gated_mlp_back", mutates_args=())
def _gated_mlp_back(
    total: Tensor, normed: Tensor, halves: Tensor, norm: Tensor, both: Tensor, w_down: Tensor, d_total: Tensor,
    d_out: Tensor, epsilon: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of the sum, of the norm's weight, of both halves' weights and of w_down."""
    d_halves, inner = _gate_back(d_out, w_down, halves)
    d_w_down = d_out.T @ inner
    dx, d_norm = add_norm_back(total, norm, d_halves @ both, d_total, epsilon)
    return dx, d_norm, d_halves.T @ normed, d_w_down


@_gated_mlp.register_fake
def _(x: Tensor, delta: Tensor, norm: Tensor, both: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return torch.empty_like(x), torch.empty_like(x), x.new_empty((len(x), len(both))), torch.empty_like(x)


@_gated_mlp_back.register_fake
def _(
    total: Tensor, normed: Tensor, halves: Tensor, norm: Tensor, both: Tensor, w_down: Tensor, *_: Any
) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(one) for one in (total, norm, both, w_down))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, _, norm, both, w_down, ctx.epsilon = inputs
    ctx.save_for_backward(*output[:3], norm, both, w_down)


def _differentiate(ctx: Any, d_total: Tensor, _normed: Any, _halves: Any, d_out: Tensor) -> tuple[Any, ...]:
    found = _gated_mlp_back(*ctx.saved_tensors, d_total.contiguous(), d_out.contiguous(), ctx.epsilon)
    return found[0], *found, None


_gated_mlp.register_autograd(_differentiate, setup_context=_keep)


def _gate(normed: Tensor, both: Tensor) -> tuple[Tensor, Tensor]:
    """Gate and up in turn [tokens, 2 inner], and SwiGLU of them [tokens, inner]."""
    if normed.device.type == "cuda":
        return _quack().gemm_gated(normed, both.T, activation="swiglu", tuned=False)
    halves = normed @ both.T
    gate, up = halves.float().unflatten(1, (-1, 2)).unbind(-1)
    return halves, (silu(gate) * up).to(halves.dtype)


def _gate_back(d_out: Tensor, w_down: Tensor, halves: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of gate and up in turn, and SwiGLU of them again."""
    if d_out.device.type == "cuda":
        d_halves, inner = torch.empty_like(halves), halves.new_empty(len(halves), w_down.shape[1])
        out = {"D": d_halves, "mAuxOut": inner}
        _gradient_of_gate()(d_out, w_down, halves, out=out, config=_tile(), tuned=False, dynamic_scheduler=True)
        return d_halves, inner
    gate, up = halves.float().unflatten(1, (-1, 2)).unbind(-1)
    inside, gradient = gate.sigmoid(), (d_out @ w_down).float()
    d_gate, d_up = gradient * up * inside * (1 + gate * (1 - inside)), gradient * gate * inside
    return torch.stack([d_gate, d_up], -1).flatten(1).to(halves.dtype), (gate * inside * up).to(halves.dtype)


@cache
def _quack() -> Any:
    from quack import gemm_interface  # type: ignore[reportMissingImports]

    return gemm_interface


@cache
def _gradient_of_gate() -> Any:
    from quack.epilogue.library import dgated_mod  # type: ignore[reportMissingImports]

    return dgated_mod("swiglu", has_scale=False, has_reduce=False)


@cache
def _tile() -> Any:
    """On Hopper smaller tiles than quack's choice (None), whose numbers fit into registers: 1.3x faster on an H100."""
    from quack.gemm_config import default_config  # type: ignore[reportMissingImports]

    config = default_config(torch.device("cuda"))
    return replace(config, tile_m=128, tile_n=128, cluster_m=1, cluster_n=2) if config.device_capacity == 9 else None
