"""Norms with what stands around them in a layer: the residual sum and the product; rotary positions of heads.

Two ways with one result, within rounding: `compiled` leaves kernels to torch.compile (or to eager torch on a CPU),
`triton` takes those of norms_triton.py as operators that torch.compile keeps whole.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

Norms = Literal["compiled", "triton"]
WAVES = 8
"""Programs per multiprocessor that walk over the tokens on the way back."""


@dataclass(frozen=True)
class Heads:
    """The numbers of one layer's heads."""

    heads: int
    kv_heads: int
    width: int
    epsilon: float


def norm_product(
    x: Tensor, delta: Tensor | None, norm: Tensor, weight: Tensor, epsilon: float, how: Norms
) -> tuple[Tensor, Tensor]:
    """`x + delta` and the product of its norm with `weight`: x, delta [tokens, size], weight [out, size]."""
    low = weight.to(x.dtype)
    if how == "compiled":
        x = x if delta is None else x + delta
        return x, rms_norm(x, norm, epsilon) @ low.T
    if delta is None:
        return x, _norm_product(x, norm, low, epsilon)
    return _add_norm_product(x, delta, norm, low, epsilon)


def rotated_heads(
    qkv: Tensor, q_norm: Tensor | None, k_norm: Tensor | None, cos: Tensor, sin: Tensor, shape: Heads, how: Norms
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of qkv [tokens, (heads + 2 kv_heads) width], normed and rotated, as [tokens, _, width].

    cos and sin are float32 [tokens, width / 2].
    """
    heads, kv_heads, width, epsilon = shape.heads, shape.kv_heads, shape.width, shape.epsilon
    if how == "triton":
        return _rotated_heads(qkv, q_norm, k_norm, cos, sin, heads, kv_heads, epsilon)
    query, key, value = qkv.view(len(qkv), -1, width).split([heads, kv_heads, kv_heads], 1)
    if q_norm is not None and k_norm is not None:
        query, key = rms_norm(query, q_norm, epsilon), rms_norm(key, k_norm, epsilon)
    return _rotate(query, cos, sin), _rotate(key, cos, sin), value.contiguous()


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Root mean square norm over the last dimension, in float32."""
    values = x.float()
    return (values * torch.rsqrt(values.square().mean(-1, keepdim=True) + epsilon) * weight).to(x.dtype)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions on x [tokens, heads, width]; a pair is one number of each half, as in Hugging Face models."""
    first, second = x.float().chunk(2, -1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)


# ---- by Triton: norm and product ------------------------------------------------------------------------------------


@torch.library.custom_op("tokenmill::norm_product", mutates_args=())
def _norm_product(x: Tensor, norm: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return _norm(x, None, norm, epsilon)[1] @ weight.T


@torch.library.custom_op("tokenmill::add_norm_product", mutates_args=())
def _add_norm_product(x: Tensor, delta: Tensor, norm: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    total, normed = _norm(x, delta, norm, epsilon)
    return total, normed @ weight.T


@torch.library.custom_op("tokenmill::norm_product_back", mutates_args=())
def _norm_product_back(
    total: Tensor, norm: Tensor, weight: Tensor, d_out: Tensor, d_total: Tensor | None, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of what was normed (with `d_total` added), of the norm's weight and of the product's."""
    tokens, size = total.shape
    d_normed = d_out @ weight
    dx, normed = torch.empty_like(total), torch.empty_like(total)
    shares = _shares(total.device, tokens, size)
    block, warps = _block(size)
    _kernels().add_norm_back[(len(shares),)](
        total, norm, d_normed, d_total, dx, normed, shares, tokens, epsilon, SIZE=size, BLOCK=block, num_warps=warps
    )
    return dx, shares.sum(0), d_out.T @ normed


def _norm(x: Tensor, delta: Tensor | None, norm: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    tokens, size = x.shape
    total, normed = x if delta is None else torch.empty_like(x), torch.empty_like(x)
    block, warps = _block(size)
    _kernels().add_norm[(tokens,)](x, delta, norm, total, normed, epsilon, SIZE=size, BLOCK=block, num_warps=warps)
    return total, normed


@_norm_product.register_fake
def _(x: Tensor, norm: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return x.new_empty((len(x), len(weight)))


@_add_norm_product.register_fake
def _(x: Tensor, delta: Tensor, norm: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty((len(x), len(weight)))


@_norm_product_back.register_fake
def _(total: Tensor, norm: Tensor, weight: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(total), torch.empty_like(norm), torch.empty_like(weight)


def _keep_norm(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, norm, weight, ctx.epsilon = inputs
    ctx.save_for_backward(x, norm, weight)


def _keep_add_norm(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, _, norm, weight, ctx.epsilon = inputs
    ctx.save_for_backward(output[0], norm, weight)


def _norm_gradients(ctx: Any, d_out: Tensor) -> tuple[Any, ...]:
    return *_norm_product_back(*ctx.saved_tensors, d_out.contiguous(), None, ctx.epsilon), None


def _add_norm_gradients(ctx: Any, d_total: Tensor, d_out: Tensor) -> tuple[Any, ...]:
    found = _norm_product_back(*ctx.saved_tensors, d_out.contiguous(), d_total.contiguous(), ctx.epsilon)
    return found[0], *found, None


_norm_product.register_autograd(_norm_gradients, setup_context=_keep_norm)
_add_norm_product.register_autograd(_add_norm_gradients, setup_context=_keep_add_norm)


# ---- by Triton: heads -----------------------------------------------------------------------------------------------


@torch.library.custom_op("tokenmill::rotated_heads", mutates_args=())
def _rotated_heads(
    qkv: Tensor, q_norm: Tensor | None, k_norm: Tensor | None, cos: Tensor, sin: Tensor,
    heads: int, kv_heads: int, epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    tokens, half = cos.shape
    *parts, value = _parts(qkv, heads, kv_heads, 2 * half)
    found: list[Tensor] = []
    for part, norm in zip(parts, (q_norm, k_norm), strict=True):
        number = part.shape[1]
        out = torch.empty_like(part, memory_format=torch.contiguous_format)
        _kernels().rotate[(tokens,)](
            part, norm, cos, sin, out, qkv.shape[1], epsilon, HEADS=number, PADDED=_padded(number), HALF=half
        )
        found.append(out)
    return found[0], found[1], value.contiguous()


@torch.library.custom_op("tokenmill::rotated_heads_back", mutates_args=())
def _rotated_heads_back(
    qkv: Tensor, q_norm: Tensor | None, k_norm: Tensor | None, cos: Tensor, sin: Tensor,
    d_query: Tensor, d_key: Tensor, d_value: Tensor, epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of qkv and of both norms' weights; of norms that are not there empty ones."""
    tokens, half = cos.shape
    d_qkv = torch.empty_like(qkv)
    sizes = d_query.shape[1], d_key.shape[1], 2 * half
    norms: list[Tensor] = []
    for part, d_part, norm, d_out in zip(
        _parts(qkv, *sizes), _parts(d_qkv, *sizes), (q_norm, k_norm), (d_query, d_key), strict=False
    ):
        number = d_out.shape[1]
        shares = _shares(qkv.device, tokens, 2 * half)
        _kernels().rotate_back[(len(shares),)](
            part, norm, cos, sin, d_out, d_part, shares, tokens, qkv.shape[1], epsilon,
            HEADS=number, PADDED=_padded(number), HALF=half,
        )  # fmt: skip
        norms.append(qkv.new_empty(0, dtype=torch.float32) if norm is None else shares.sum(0))
    _parts(d_qkv, *sizes)[2].copy_(d_value)
    return d_qkv, norms[0], norms[1]


@_rotated_heads.register_fake
def _(qkv: Tensor, q_norm: Any, k_norm: Any, cos: Tensor, sin: Tensor, heads: int, kv_heads: int, _: float) -> Any:
    width = 2 * cos.shape[1]
    return tuple(qkv.new_empty((len(qkv), number, width)) for number in (heads, kv_heads, kv_heads))


@_rotated_heads_back.register_fake
def _(qkv: Tensor, q_norm: Tensor | None, k_norm: Tensor | None, *_: Any) -> Any:
    empty = qkv.new_empty(0, dtype=torch.float32)
    return torch.empty_like(qkv), *(empty if one is None else torch.empty_like(one) for one in (q_norm, k_norm))


def _keep_heads(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.epsilon = inputs[7]
    ctx.save_for_backward(*inputs[:5])


def _heads_gradients(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
    d_heads = [one.contiguous() for one in gradients]
    qkv, q_norm, k_norm, cos, sin = ctx.saved_tensors
    d_qkv, d_q_norm, d_k_norm = _rotated_heads_back(qkv, q_norm, k_norm, cos, sin, *d_heads, ctx.epsilon)
    normed = q_norm is not None
    return d_qkv, d_q_norm if normed else None, d_k_norm if normed else None, *[None] * 5


_rotated_heads.register_autograd(_heads_gradients, setup_context=_keep_heads)


@cache
def _kernels() -> Any:
    from training import norms_triton

    return norms_triton


def _parts(qkv: Tensor, heads: int, kv_heads: int, width: int) -> tuple[Tensor, ...]:
    return qkv.view(len(qkv), -1, width).split([heads, kv_heads, kv_heads], 1)


def _padded(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _block(size: int) -> tuple[int, int]:
    """Numbers that a program holds, a power of two, and the warps for them."""
    block = _padded(size)
    return block, min(16, max(1, block // 256))


def _shares(device: torch.device, tokens: int, size: int) -> Tensor:
    """A row for every program of a way back: as many as keep a GPU busy."""
    some = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
    return torch.empty((min(tokens, WAVES * some), size), dtype=torch.float32, device=device)
