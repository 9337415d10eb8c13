"""Triton kernels for norms and rotary positions: each tensor is read and written once, gradients of weights with it.

A compiler makes two kernels of the way back through a norm, one for the input's gradient and one that reads everything
again for the weight's. Here each program walks over many tokens and keeps its share of the weight's gradient.
Numbers are computed in float32 whatever their type in memory.
"""

# Triton's language has no types.
# pyright: basic, reportMissingImports=false

import triton
import triton.language as tl

STAGES = tl.constexpr(3)  # while a program computes on one token, the numbers of the next ones are on their way


@triton.jit
def add_norm(x_at, delta_at, weight_at, sum_at, out_at, epsilon, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """sum = x + delta and out = its root mean square norm times weight; one program per token of SIZE numbers.

    Without `delta_at` (None) the sum is x, which is not written.
    """
    token = tl.program_id(0).to(tl.int64) * SIZE
    column = tl.arange(0, BLOCK)
    inside = column < SIZE
    x = tl.load(x_at + token + column, inside, 0.0).to(tl.float32)
    if delta_at is not None:
        x += tl.load(delta_at + token + column, inside, 0.0).to(tl.float32)
        low = x.to(sum_at.dtype.element_ty)
        tl.store(sum_at + token + column, low, inside)
        x = low.to(tl.float32)  # the norm is that of what is kept
    factor = tl.rsqrt(tl.sum(x * x, 0) / SIZE + epsilon)
    weight = tl.load(weight_at + column, inside, 0.0)
    tl.store(out_at + token + column, (x * factor * weight).to(out_at.dtype.element_ty), inside)


@triton.jit
def add_norm_back(
    x_at, weight_at, d_out_at, d_sum_at, dx_at, d_weight_at, tokens, epsilon,
    SIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """From d_out and the gradient of the sum: dx, and this program's share of d_weight."""
    program = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < SIZE
    weight = tl.load(weight_at + column, inside, 0.0)
    d_weight = tl.zeros([BLOCK], tl.float32)
    wide = tl.zeros((), tl.int64)
    for token in tl.range(program, tokens, tl.num_programs(0), num_stages=STAGES):
        row = (token + wide) * SIZE + column
        x = tl.load(x_at + row, inside, 0.0).to(tl.float32)
        d_out = tl.load(d_out_at + row, inside, 0.0).to(tl.float32)
        factor = tl.rsqrt(tl.sum(x * x, 0) / SIZE + epsilon)
        normed = x * factor
        part = d_out * weight
        dx = factor * (part - normed * (tl.sum(part * normed, 0) / SIZE))
        if d_sum_at is not None:
            dx += tl.load(d_sum_at + row, inside, 0.0).to(tl.float32)
        d_weight += d_out * normed
        tl.store(dx_at + row, dx.to(dx_at.dtype.element_ty), inside)
    tl.store(d_weight_at + program * SIZE + column, d_weight, inside)


@triton.jit
def rotate(
    heads_at, weight_at, cos_at, sin_at, out_at, stride, epsilon,
    HEADS: tl.constexpr, PADDED: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """Norm (with a weight) and rotary positions of one token's HEADS of 2 HALF numbers; tokens are `stride` apart."""
    token = tl.program_id(0).to(tl.int64)
    head, column = tl.arange(0, PADDED)[:, None], tl.arange(0, HALF)[None, :]
    inside = head < HEADS
    place = head * 2 * HALF + column
    a = tl.load(heads_at + token * stride + place, inside, 0.0).to(tl.float32)
    b = tl.load(heads_at + token * stride + place + HALF, inside, 0.0).to(tl.float32)
    if weight_at is not None:
        factor = tl.rsqrt((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / (2 * HALF) + epsilon)[:, None]
        a = a * factor * tl.load(weight_at + column)
        b = b * factor * tl.load(weight_at + HALF + column)
    cos, sin = tl.load(cos_at + token * HALF + column), tl.load(sin_at + token * HALF + column)
    out = out_at + token * HEADS * 2 * HALF + place
    tl.store(out, (a * cos - b * sin).to(out_at.dtype.element_ty), inside)
    tl.store(out + HALF, (b * cos + a * sin).to(out_at.dtype.element_ty), inside)


@triton.jit
def rotate_back(
    heads_at, weight_at, cos_at, sin_at, d_out_at, d_behind_at, dx_at, d_weight_at, tokens, stride, epsilon,
    HEADS: tl.constexpr, PADDED: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """From the gradient of what `rotate` gave: dx, `stride` apart, and this program's share of d_weight.

    `d_behind_at` (or None) is as large as d_out and is copied behind dx: that of the values, which lie behind the keys.
    """
    program = tl.program_id(0)
    head, column = tl.arange(0, PADDED)[:, None], tl.arange(0, HALF)[None, :]
    inside = head < HEADS
    place = head * 2 * HALF + column
    d_first, d_second = tl.zeros([PADDED, HALF], tl.float32), tl.zeros([PADDED, HALF], tl.float32)
    wide = tl.zeros((), tl.int64)
    for number in tl.range(program, tokens, tl.num_programs(0), num_stages=STAGES):
        token = number + wide
        cos, sin = tl.load(cos_at + token * HALF + column), tl.load(sin_at + token * HALF + column)
        d_out = d_out_at + token * HEADS * 2 * HALF + place
        low, high = tl.load(d_out, inside, 0.0).to(tl.float32), tl.load(d_out + HALF, inside, 0.0).to(tl.float32)
        da, db = low * cos + high * sin, high * cos - low * sin
        if weight_at is not None:
            a = tl.load(heads_at + token * stride + place, inside, 0.0).to(tl.float32)
            b = tl.load(heads_at + token * stride + place + HALF, inside, 0.0).to(tl.float32)
            factor = tl.rsqrt((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / (2 * HALF) + epsilon)[:, None]
            a, b = a * factor, b * factor
            d_first += da * a
            d_second += db * b
            da, db = da * tl.load(weight_at + column), db * tl.load(weight_at + HALF + column)
            mean = ((tl.sum(da * a, 1) + tl.sum(db * b, 1)) / (2 * HALF))[:, None]
            da, db = factor * (da - a * mean), factor * (db - b * mean)
        tl.store(dx_at + token * stride + place, da.to(dx_at.dtype.element_ty), inside)
        tl.store(dx_at + token * stride + place + HALF, db.to(dx_at.dtype.element_ty), inside)
        if d_behind_at is not None:
            d_behind, behind = d_behind_at + token * HEADS * 2 * HALF + place, HEADS * 2 * HALF
            tl.store(dx_at + token * stride + behind + place, tl.load(d_behind, inside, 0.0), inside)
            tl.store(dx_at + token * stride + behind + place + HALF, tl.load(d_behind + HALF, inside, 0.0), inside)
    if weight_at is not None:
        share = d_weight_at + program * 2 * HALF + tl.arange(0, HALF)
        tl.store(share, tl.sum(d_first, 0))
        tl.store(share + HALF, tl.sum(d_second, 0))
