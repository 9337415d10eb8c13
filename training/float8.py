"""Numbers of 8 bits with a scale per row: how they are made, turned and multiplied.

Everything follows from the tensor itself, so there is no state: a kernel that has a whole row knows its largest number
before it writes. Hopper's products want both sides in rows along what is summed over; a gradient of a weight sums over
tokens, so its two sides are turned, and then have one scale.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from training.norms import HEAD_WAVES, padded, shares_of

FORMAT = torch.float8_e4m3fn
"""Gradients too: with a scale for every token five bits of exponent gain nothing over a third digit."""
UNIT = 16
"""Sizes of products are multiples of this."""
HIGH, WIDE = 128, 128
"""Tile of a kernel that turns."""


class Rows(NamedTuple):
    """[rows, size] as `values` in 8 bits times `scale`, float32 [rows], powers of two."""

    values: Tensor
    scale: Tensor


def product(a: Rows, b: Rows, dtype: torch.dtype, fast: bool = True) -> Tensor:
    """a [m, k] times b [n, k] turned: [m, n]. `fast` sums in the tensor cores' own precision, for short sums."""
    scales = {"scale_a": a.scale[:, None], "scale_b": b.scale[None]}
    return torch._scaled_mm(a.values, b.values.T, **scales, out_dtype=dtype, use_fast_accum=fast)  # type: ignore


def gradients(d_out: Rows, x: Rows, weight: Rows, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Of x and of the weight, from that of product(x, weight)."""
    return product(d_out, turned(weight), dtype), product(turned(d_out), turned(x), dtype, fast=False)


def rows_of(x: Tensor) -> Rows:
    """x [rows, size] in 8 bits."""
    out = _empty(x.shape, x.device)
    grid, tile = _tiles(*x.shape)
    _kernels().rows[grid](x, *out, len(x), **tile)
    return out


def turned(x: Rows) -> Rows:
    """[size, rows], with the largest of the scales for all."""
    rows, columns = x.values.shape
    out = _empty((columns, rows), x.values.device)
    grid = (-(-rows // HIGH), -(-columns // WIDE))
    _kernels().turn[grid](*x, x.scale.amax(), *out, rows, columns, HIGH=HIGH, WIDE=WIDE, num_warps=8)
    return out


def add_norm(x: Tensor, delta: Tensor | None, norm: Tensor, epsilon: float) -> tuple[Tensor, Rows]:
    """The sum and its root mean square norm; without `delta` the sum is x itself."""
    total, normed = x if delta is None else torch.empty_like(x), _empty(x.shape, x.device)
    grid, tile = _tiles(*x.shape)
    _kernels().add_norm[grid](x, delta, norm, total, *normed, len(x), epsilon, **tile)
    return total, normed


def add_norm_back(
    total: Tensor, norm: Tensor, d_normed: Tensor, d_total: Tensor | None, epsilon: float, low: bool
) -> tuple[Tensor, Tensor, Rows | None]:
    """Gradients of the sum (with `d_total` added) and of the norm's weight; with `low` the first one in 8 bits too."""
    dx, rows = torch.empty_like(total), _empty(total.shape, total.device) if low else None
    (programs,), tile = _tiles(*total.shape)
    shares = shares_of(total.device, programs, total.shape[1])
    _kernels().add_norm_back[(len(shares),)](
        total, norm, d_normed, d_total, dx, *(rows or (None, None)), shares, len(total), epsilon, **tile
    )
    return dx, shares.sum(0), rows


def swiglu(both: Tensor) -> Rows:
    """silu(gate) * up of gates and ups [tokens, 2 size]."""
    tokens, size = len(both), both.shape[1] // 2
    out = _empty((tokens, size), both.device)
    grid, tile = _tiles(tokens, size)
    _kernels().swiglu[grid](both, *out, tokens, **tile)
    return out


def swiglu_back(both: Tensor, d_inner: Tensor) -> Rows:
    """The gradient of gates and ups."""
    out = _empty(both.shape, both.device)
    grid, tile = _tiles(*d_inner.shape)
    _kernels().swiglu_back[grid](both, d_inner, *out, len(both), **tile)
    return out


def rotate_back(
    qkv: Tensor, q_norm: Tensor | None, k_norm: Tensor | None, cos: Tensor, sin: Tensor, d_heads: list[Tensor],
    epsilon: float,
) -> tuple[Rows, Tensor, Tensor]:  # fmt: skip
    """The gradient of qkv from those of rotated queries and keys and of values; of both norms, empty without them."""
    tokens, half = cos.shape
    out, (query, key, _) = _empty(qkv.shape, qkv.device), d_heads
    shares = [shares_of(qkv.device, tokens, 2 * half, HEAD_WAVES) for _ in range(2)]
    _kernels().rotate_back[(len(shares[0]),)](
        qkv, q_norm, k_norm, cos, sin, *d_heads, *out, *shares, tokens, epsilon, HEADS=query.shape[1],
        PADDED=padded(query.shape[1]), KV_HEADS=key.shape[1], KV_PADDED=padded(key.shape[1]), HALF=half,
    )  # fmt: skip
    if q_norm is None:
        return out, shares[0].new_empty(0), shares[1].new_empty(0)
    return out, shares[0].sum(0), shares[1].sum(0)


def _empty(shape: Sequence[int], device: torch.device) -> Rows:
    scale = torch.empty(shape[0], dtype=torch.float32, device=device)
    return Rows(torch.empty(tuple(shape), dtype=FORMAT, device=device), scale)


def _tiles(rows: int, size: int) -> tuple[tuple[int], dict[str, int]]:
    """Programs, and what each holds: whole rows, many of them where they are short."""
    block = padded(size)
    high = max(1, 1024 // block)
    warps = min(8, max(1, high * block // 1024))
    return (-(-rows // high),), {"SIZE": size, "BLOCK": block, "ROWS": high, "num_warps": warps}


@cache
def _kernels() -> Any:
    from training import float8_kernels

    return float8_kernels
