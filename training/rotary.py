"""Rotary positions and norms of a layer's heads, all of a token's at once."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.norms import HEAD_WAVES, Fusion, kernels, padded, rms_norm, shares_of


@dataclass(frozen=True)
class Heads:
    """The numbers of one layer's heads."""

    heads: int
    kv_heads: int
    width: int
    epsilon: float


def rotated_heads(
    qkv: Tensor, q_norm: Tensor | None, k_norm: Tensor | None, cos: Tensor, sin: Tensor, shape: Heads, fusion: Fusion
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of qkv [tokens, (heads + 2 kv_heads) width], normed and rotated, as [tokens, _, width].

    cos and sin are float32 [tokens, width / 2].
    """
    heads, kv_heads, width, epsilon = shape.heads, shape.kv_heads, shape.width, shape.epsilon
    if fusion != "compiled":
        return _ByTriton.apply(qkv, q_norm, k_norm, cos, sin, shape)  # type: ignore[no-any-return]
    query, key, value = qkv.view(len(qkv), -1, width).split([heads, kv_heads, kv_heads], 1)
    if q_norm is not None and k_norm is not None:
        query, key = rms_norm(query, q_norm, epsilon), rms_norm(key, k_norm, epsilon)
    return _rotate(query, cos, sin), _rotate(key, cos, sin), value.contiguous()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions on x [tokens, heads, width]; a pair is one number of each half, as in Hugging Face models."""
    first, second = x.float().chunk(2, -1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)


# ---- by Triton ------------------------------------------------------------------------------------------------------


class _ByTriton(torch.autograd.Function):
    """Two operators that torch.compile keeps whole. The values are a part of qkv, which no operator may return."""

    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, q_norm: Tensor | None, k_norm: Tensor | None, cos: Tensor, sin: Tensor, shape: Heads
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(qkv, q_norm, k_norm, cos, sin)
        ctx.epsilon = shape.epsilon
        heads, kv_heads = shape.heads, shape.kv_heads
        query, key = rotated(qkv, q_norm, k_norm, cos, sin, heads, kv_heads, shape.epsilon)
        return query, key, parts_of(qkv, heads, kv_heads, shape.width)[2]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        qkv, q_norm, k_norm, cos, sin = ctx.saved_tensors
        d_heads = [one.contiguous() for one in gradients]
        d_qkv, d_q_norm, d_k_norm = _rotated_heads_back(qkv, q_norm, k_norm, cos, sin, *d_heads, ctx.epsilon)
        normed = q_norm is not None
        return d_qkv, d_q_norm if normed else None, d_k_norm if normed else None, None, None, None


@torch.library.custom_op("tokenmill::rotated_heads", mutates_args=())
def rotated(
    qkv: Tensor, q_norm: Tensor | None, k_norm: Tensor | None, cos: Tensor, sin: Tensor,
    heads: int, kv_heads: int, epsilon: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Queries and keys."""
    tokens, half = cos.shape
    found: list[Tensor] = []
    for part, norm in zip(parts_of(qkv, heads, kv_heads, 2 * half), (q_norm, k_norm), strict=False):
        number = part.shape[1]
        out = torch.empty_like(part, memory_format=torch.contiguous_format)
        kernels().rotate[(tokens,)](
            part, norm, cos, sin, out, qkv.shape[1], epsilon, HEADS=number, PADDED=padded(number), HALF=half
        )
        found.append(out)
    return found[0], found[1]


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
    parts, d_parts = parts_of(qkv, *sizes), parts_of(d_qkv, *sizes)
    for part, d_part, norm, d_out, d_behind in zip(
        parts, d_parts, (q_norm, k_norm), (d_query, d_key), (None, d_value), strict=False
    ):
        number = d_out.shape[1]
        shares = shares_of(qkv.device, tokens, 2 * half, HEAD_WAVES)
        kernels().rotate_back[(len(shares),)](
            part, norm, cos, sin, d_out, d_behind, d_part, shares, tokens, qkv.shape[1], epsilon,
            HEADS=number, PADDED=padded(number), HALF=half,
        )  # fmt: skip
        norms.append(qkv.new_empty(0, dtype=torch.float32) if norm is None else shares.sum(0))
    return d_qkv, norms[0], norms[1]


@rotated.register_fake
def _(qkv: Tensor, q_norm: Any, k_norm: Any, cos: Tensor, sin: Tensor, heads: int, kv_heads: int, _: float) -> Any:
    width = 2 * cos.shape[1]
    return tuple(qkv.new_empty((len(qkv), number, width)) for number in (heads, kv_heads))


@_rotated_heads_back.register_fake
def _(qkv: Tensor, q_norm: Tensor | None, k_norm: Tensor | None, *_: Any) -> Any:
    empty = qkv.new_empty(0, dtype=torch.float32)
    return torch.empty_like(qkv), *(empty if one is None else torch.empty_like(one) for one in (q_norm, k_norm))


def parts_of(qkv: Tensor, heads: int, kv_heads: int, width: int) -> tuple[Tensor, ...]:
    """Queries, keys and values where they lie in qkv, [tokens, _, width]."""
    return qkv.view(len(qkv), -1, width).split([heads, kv_heads, kv_heads], 1)
