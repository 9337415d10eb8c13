"""Triton kernels that leave their numbers in 8 bits, each row with a power of two as its scale, and that turn such rows.

A scale that is a power of two loses nothing: rows that get another one keep their bits, whatever is above the
smallest numbers of the format. Numbers are computed in float32.
"""

# Triton's language has no types.
# pyright: basic, reportMissingImports=false

import triton
import triton.language as tl


@triton.jit
def _scales(largest):
    """The largest power of two that keeps rows of such largest numbers below 448, and its inverse."""
    # Of 448 = 1.75 * 2^8 and largest = m * 2^e: 2^(8 - e), and half of that where m is above 1.75.
    exponent = ((largest.to(tl.int32, bitcast=True) + 0x1FFFFF) >> 23) - 127
    power = tl.minimum(8 - exponent, 100)  # 100: rows of nothing
    return ((127 + power) << 23).to(tl.float32, bitcast=True), ((127 - power) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _store_rows(x, out_at, scale_at, row, column, inside, rows, SIZE: tl.constexpr):
    """Keep x [ROWS, BLOCK] as float8_e4m3fn and the scales that bring it back."""
    factor, scale = _scales(tl.max(tl.abs(x), 1))
    tl.store(out_at + row[:, None] * SIZE + column, (x * factor[:, None]).to(tl.float8e4nv), inside)
    tl.store(scale_at + row, scale, row < rows)


@triton.jit
def rows(x_at, out_at, scale_at, number, SIZE: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr):
    """x [number, SIZE] in 8 bits; a program has ROWS rows."""
    row, column = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS), tl.arange(0, BLOCK)[None, :]
    inside = (row < number)[:, None] & (column < SIZE)
    x = tl.load(x_at + row[:, None] * SIZE + column, inside, 0.0).to(tl.float32)
    _store_rows(x, out_at, scale_at, row, column, inside, number, SIZE)


@triton.jit
def turn(
    x_at, scale_at, largest_at, out_at, out_scale_at, rows, columns, HIGH: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """x [rows, columns] of 8 bits as [columns, rows], all of it by the largest scale of x's rows."""
    row = tl.program_id(0).to(tl.int64) * HIGH + tl.arange(0, HIGH)
    column = tl.program_id(1).to(tl.int64) * WIDE + tl.arange(0, WIDE)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    largest = tl.load(largest_at)
    factor = (tl.load(scale_at + row, row < rows, 0.0) / largest).to(tl.float16)
    x = tl.load(x_at + row[:, None] * columns + column[None, :], inside, 0.0)
    # Exact in float16: what falls below its numbers is none of 8 bits either.
    low = (x.to(tl.float16) * factor[:, None]).to(tl.float8e4nv)
    tl.store(out_at + column[:, None] * rows + row[None, :], tl.trans(low), tl.trans(inside))
    if tl.program_id(0) == 0:
        tl.store(out_scale_at + column, largest + tl.zeros([WIDE], tl.float32), column < columns)


@triton.jit
def add_norm(
    x_at, delta_at, weight_at, sum_at, out_at, scale_at, tokens, epsilon,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """sum = x + delta, and out = its root mean square norm times weight in 8 bits; without delta the sum is x."""
    row, column = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS), tl.arange(0, BLOCK)[None, :]
    inside = (row < tokens)[:, None] & (column < SIZE)
    place = row[:, None] * SIZE + column
    x = tl.load(x_at + place, inside, 0.0).to(tl.float32)
    if delta_at is not None:
        x += tl.load(delta_at + place, inside, 0.0).to(tl.float32)
        low = x.to(sum_at.dtype.element_ty)
        tl.store(sum_at + place, low, inside)
        x = low.to(tl.float32)  # the norm is that of what is kept
    factor = tl.rsqrt(tl.sum(x * x, 1) / SIZE + epsilon)[:, None]
    weight = tl.load(weight_at + column, column < SIZE, 0.0)
    _store_rows(x * factor * weight, out_at, scale_at, row, column, inside, tokens, SIZE)


@triton.jit
def add_norm_back(
    x_at, weight_at, d_out_at, d_sum_at, dx_at, out_at, scale_at, d_weight_at, tokens, epsilon,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """From d_out and the gradient of the sum: dx, with `out_at` also in 8 bits, and this program's share of d_weight."""
    program, column = tl.program_id(0), tl.arange(0, BLOCK)[None, :]
    weight = tl.load(weight_at + column, column < SIZE, 0.0)
    d_weight = tl.zeros([ROWS, BLOCK], tl.float32)
    row, step = program.to(tl.int64) * ROWS + tl.arange(0, ROWS), tl.num_programs(0) * ROWS
    for _ in range(program * ROWS, tokens, tl.num_programs(0) * ROWS):
        inside = (row < tokens)[:, None] & (column < SIZE)
        place = row[:, None] * SIZE + column
        x = tl.load(x_at + place, inside, 0.0).to(tl.float32)
        d_out = tl.load(d_out_at + place, inside, 0.0).to(tl.float32)
        factor = tl.rsqrt(tl.sum(x * x, 1) / SIZE + epsilon)[:, None]
        normed, part = x * factor, d_out * weight
        dx = factor * (part - normed * (tl.sum(part * normed, 1) / SIZE)[:, None])
        if d_sum_at is not None:
            dx += tl.load(d_sum_at + place, inside, 0.0).to(tl.float32)
        d_weight += d_out * normed
        tl.store(dx_at + place, dx.to(dx_at.dtype.element_ty), inside)
        if out_at is not None:
            _store_rows(dx, out_at, scale_at, row, column, inside, tokens, SIZE)
        row += step
    share = tl.sum(d_weight, 0)
    tl.store(d_weight_at + program * SIZE + tl.arange(0, BLOCK), share, tl.arange(0, BLOCK) < SIZE)


@triton.jit
def swiglu(both_at, out_at, scale_at, tokens, SIZE: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr):
    """silu(gate) * up in 8 bits, of [tokens, 2 SIZE] with all gates before all ups."""
    row, column = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS), tl.arange(0, BLOCK)[None, :]
    inside = (row < tokens)[:, None] & (column < SIZE)
    place = both_at + row[:, None] * 2 * SIZE + column
    gate, up = tl.load(place, inside, 0.0).to(tl.float32), tl.load(place + SIZE, inside, 0.0).to(tl.float32)
    _store_rows(gate * tl.sigmoid(gate) * up, out_at, scale_at, row, column, inside, tokens, SIZE)


@triton.jit
def swiglu_back(
    both_at, d_inner_at, out_at, scale_at, tokens, SIZE: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr
):
    """The gradient of gates and ups in 8 bits, [tokens, 2 SIZE], from that of what `swiglu` gave."""
    row, column = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS), tl.arange(0, BLOCK)[None, :]
    inside = (row < tokens)[:, None] & (column < SIZE)
    place = row[:, None] * 2 * SIZE + column
    gate = tl.load(both_at + place, inside, 0.0).to(tl.float32)
    up = tl.load(both_at + place + SIZE, inside, 0.0).to(tl.float32)
    d_inner = tl.load(d_inner_at + row[:, None] * SIZE + column, inside, 0.0).to(tl.float32)
    open = tl.sigmoid(gate)
    d_up = d_inner * gate * open
    d_gate = d_inner * up * open * (1 + gate * (1 - open))
    factor, scale = _scales(tl.maximum(tl.max(tl.abs(d_gate), 1), tl.max(tl.abs(d_up), 1)))
    tl.store(out_at + place, (d_gate * factor[:, None]).to(tl.float8e4nv), inside)
    tl.store(out_at + place + SIZE, (d_up * factor[:, None]).to(tl.float8e4nv), inside)
    tl.store(scale_at + row, scale, row < tokens)
