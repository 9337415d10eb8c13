"""The products of a layer in 8 bits, forward and back, with what stands around them: operators for torch.compile.

What lies between layers and what attention takes stays in the activations' type. The kernels that make a product's
input write it in 8 bits at once; only the outputs of attention and of whole layers are read once more for that.
"""

from typing import Any

import torch
from torch import Tensor

from training.float8 import (
    Rows,
    add_norm,
    add_norm_back,
    gradients,
    product,
    rotate_back,
    rows_of,
    swiglu,
    swiglu_back,
)
from training.rotary import Heads, parts_of, rotated

Some = tuple[Tensor, ...]


def first_half(
    x: Tensor, delta: Tensor | None, norm: Tensor, weight: Tensor, q_norm: Tensor | None, k_norm: Tensor | None,
    cos: Tensor, sin: Tensor, shape: Heads,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """`x + delta`, and from the product of its norm with `weight` queries, keys and values for attention.

    x, delta [tokens, size], weight [(heads + 2 kv_heads) width, size]; see rotary.rotated_heads for the rest.
    """
    found = _FirstHalf.apply(x, delta, norm, weight.to(x.dtype), q_norm, k_norm, cos, sin, shape)
    total, query, key, value = found  # type: ignore[misc]
    return x if delta is None else total, query, key, value


def second_half(
    x: Tensor, mixed: Tensor, w_out: Tensor, norm: Tensor, both: Tensor, w_down: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """From what attention mixed: x plus its product with w_out, and what the norm of that becomes by SwiGLU.

    x [tokens, size], w_out [size, _], both (gate before up) [2 inner, size], w_down [size, inner].
    """
    low = (one.to(x.dtype) for one in (w_out, both, w_down))
    total, out, *_ = _second_half(x, mixed, norm, *low, epsilon)
    return total, out


# ---- up to attention ------------------------------------------------------------------------------------------------


class _FirstHalf(torch.autograd.Function):
    """Operators that torch.compile keeps whole. The values are a part of qkv, which no operator may return."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, delta: Tensor | None, norm: Tensor, weight: Tensor, q_norm: Tensor | None,
        k_norm: Tensor | None, cos: Tensor, sin: Tensor, shape: Heads,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        total, qkv, *low = _norm_product(x, delta, norm, weight, shape.epsilon)
        query, key = rotated(qkv, q_norm, k_norm, cos, sin, shape.heads, shape.kv_heads, shape.epsilon)
        kept = x if delta is None else total
        ctx.save_for_backward(kept, norm, qkv, q_norm, k_norm, cos, sin, *low)
        ctx.added, ctx.epsilon = delta is not None, shape.epsilon
        return total, query, key, parts_of(qkv, shape.heads, shape.kv_heads, shape.width)[2]

    @staticmethod
    def backward(ctx: Any, *found: Tensor) -> tuple[Tensor | None, ...]:
        total, norm, qkv, q_norm, k_norm, cos, sin, *low = ctx.saved_tensors
        d_total, *d_heads = (one.contiguous() for one in found)
        dx, d_norm, d_weight, d_q_norm, d_k_norm = _first_half_back(
            total, norm, qkv, q_norm, k_norm, cos, sin, low, d_heads, d_total if ctx.added else None, ctx.epsilon
        )
        d_norms = (d_q_norm, d_k_norm) if q_norm is not None else (None, None)
        return dx, dx if ctx.added else None, d_norm, d_weight, *d_norms, None, None, None


@torch.library.custom_op("tokenmill::float8_norm_product", mutates_args=())
def _norm_product(
    x: Tensor, delta: Tensor | None, norm: Tensor, weight: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    total, normed = add_norm(x, delta, norm, epsilon)
    low = rows_of(weight)
    # An operator may not return its input.
    kept = x.new_empty(0) if delta is None else total
    return kept, product(normed, low, x.dtype), *normed, *low  # type: ignore[reportReturnType]


@torch.library.custom_op("tokenmill::float8_first_half_back", mutates_args=())
def _first_half_back(
    total: Tensor, norm: Tensor, qkv: Tensor, q_norm: Tensor | None, k_norm: Tensor | None, cos: Tensor, sin: Tensor,
    low: list[Tensor], d_heads: list[Tensor], d_total: Tensor | None, epsilon: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of the sum (with `d_total` added), of the norm's weight, of the product's and of the heads' norms'."""
    d_qkv, d_q_norm, d_k_norm = rotate_back(qkv, q_norm, k_norm, cos, sin, d_heads, epsilon)
    d_normed, d_weight = gradients(d_qkv, Rows(*low[:2]), Rows(*low[2:]), total.dtype)
    dx, d_norm, _ = add_norm_back(total, norm, d_normed, d_total, epsilon, low=False)
    return dx, d_norm, d_weight, d_q_norm, d_k_norm


@_norm_product.register_fake
def _(x: Tensor, delta: Tensor | None, norm: Tensor, weight: Tensor, epsilon: float) -> Some:
    total = x.new_empty(0) if delta is None else torch.empty_like(x)
    return total, x.new_empty((len(x), len(weight))), *_like(x), *_like(weight)


@_first_half_back.register_fake
def _(
    total: Tensor, norm: Tensor, qkv: Tensor, q_norm: Tensor | None, k_norm: Tensor | None, cos: Tensor, sin: Tensor,
    low: list[Tensor], *_: Any,
) -> Some:  # fmt: skip
    empty = total.new_empty(0, dtype=torch.float32)
    norms = (empty.clone() if one is None else torch.empty_like(one) for one in (q_norm, k_norm))
    return torch.empty_like(total), torch.empty_like(norm), torch.empty_like(low[2], dtype=total.dtype), *norms


# ---- from attention to the layer's end ------------------------------------------------------------------------------


@torch.library.custom_op("tokenmill::float8_second_half", mutates_args=())
def _second_half(
    x: Tensor, mixed: Tensor, norm: Tensor, w_out: Tensor, both: Tensor, w_down: Tensor, epsilon: float
) -> tuple[
    Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
    Tensor,
]:  # fmt: skip
    low_mixed, low_out, low_both, low_down = (rows_of(one) for one in (mixed, w_out, both, w_down))
    total, normed = add_norm(x, product(low_mixed, low_out, x.dtype), norm, epsilon)
    halves = product(normed, low_both, x.dtype)
    inner = swiglu(halves)
    out = product(inner, low_down, x.dtype)
    low = (*low_mixed, *normed, *inner, *low_out, *low_both, *low_down)
    return total, out, halves, *low  # type: ignore[reportReturnType]


@torch.library.custom_op("tokenmill::float8_second_half_back", mutates_args=())
def _second_half_back(
    total: Tensor, halves: Tensor, norm: Tensor, low: list[Tensor], d_total: Tensor, d_out: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the sum, of what attention mixed, of the norm's weight, of w_out, both and w_down."""
    mixed, normed, inner, w_out, both, w_down = (Rows(*low[at : at + 2]) for at in range(0, 12, 2))
    d_inner, d_down = gradients(rows_of(d_out), inner, w_down, total.dtype)
    d_normed, d_both = gradients(swiglu_back(halves, d_inner), normed, both, total.dtype)
    dx, d_norm, low_dx = add_norm_back(total, norm, d_normed, d_total, epsilon, low=True)
    assert low_dx is not None
    d_mixed, d_w_out = gradients(low_dx, mixed, w_out, total.dtype)
    return dx, d_mixed, d_norm, d_w_out, d_both, d_down


@_second_half.register_fake
def _(x: Tensor, mixed: Tensor, norm: Tensor, w_out: Tensor, both: Tensor, w_down: Tensor, epsilon: float) -> Some:
    halves, inner = x.new_empty((len(x), len(both))), x.new_empty((len(x), w_down.shape[1]))
    low = [part for one in (mixed, x, inner, w_out, both, w_down) for part in _like(one)]
    return torch.empty_like(x), torch.empty_like(x), halves, *low


@_second_half_back.register_fake
def _(total: Tensor, halves: Tensor, norm: Tensor, low: list[Tensor], *_: Any) -> Some:
    mixed, w_out, both, w_down = (torch.empty_like(low[at], dtype=total.dtype) for at in (0, 6, 8, 10))
    return torch.empty_like(total), mixed, torch.empty_like(norm), w_out, both, w_down


def _keep_second_half(ctx: Any, inputs: tuple[Any, ...], output: Some) -> None:
    ctx.epsilon = inputs[-1]
    ctx.save_for_backward(output[0], output[2], inputs[2], *output[3:])


def _second_half_gradients(ctx: Any, d_total: Tensor, d_out: Tensor, *_: Any) -> tuple[Any, ...]:
    total, halves, norm, *low = ctx.saved_tensors
    found = _second_half_back(total, halves, norm, low, d_total.contiguous(), d_out.contiguous(), ctx.epsilon)
    return *found, None


_second_half.register_autograd(_second_half_gradients, setup_context=_keep_second_half)


def _like(x: Tensor) -> tuple[Tensor, Tensor]:
    """What `rows_of` gives, without numbers."""
    return torch.empty_like(x, dtype=torch.float8_e4m3fn), x.new_empty(len(x), dtype=torch.float32)
