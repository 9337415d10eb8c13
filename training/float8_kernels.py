"""Triton kernels that leave their numbers in 8 bits, with a scale for each row, and that turn such rows.

Scales are powers of two, so that rows of another scale keep their digits, but for those near the format's smallest
numbers. Numbers are computed in float32.
"""

# Triton's language has no types.
# pyright: basic, reportMissingImports=false, reportGeneralTypeIssues=false

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
    x = tl.load(x_at + row[:, None] * columns + column[None, :], inside)
    # Exact in float16: what falls below its numbers is none of 8 bits either.
    low = (x.to(tl.float16) * factor[:, None]).to(tl.float8e4nv)
    inside = (column < columns)[:, None] & (row < rows)[None, :]
    tl.store(out_at + column[:, None] * rows + row[None, :], tl.trans(low), inside)
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
    """From d_out and the gradient of the sum: dx, with `out_at` in 8 bits too, and this program's share of d_weight."""
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
    share = tl.sigmoid(gate)
    d_up = d_inner * gate * share
    d_gate = d_inner * up * share * (1 + gate * (1 - share))
    factor, scale = _scales(tl.maximum(tl.max(tl.abs(d_gate), 1), tl.max(tl.abs(d_up), 1)))
    tl.store(out_at + place, (d_gate * factor[:, None]).to(tl.float8e4nv), inside)
    tl.store(out_at + place + SIZE, (d_up * factor[:, None]).to(tl.float8e4nv), inside)
    tl.store(scale_at + row, scale, row < tokens)


@triton.jit
def rotate_back(
    qkv_at, q_norm_at, k_norm_at, cos_at, sin_at, d_query_at, d_key_at, d_value_at, out_at, scale_at, d_q_norm_at,
    d_k_norm_at, tokens, epsilon,
    HEADS: tl.constexpr, PADDED: tl.constexpr, KV_HEADS: tl.constexpr, KV_PADDED: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """From the gradients of rotated queries and keys and of values that of qkv in 8 bits, and shares of the norms'."""
    program, column = tl.program_id(0), tl.arange(0, HALF)[None, :]
    head, kv_head = tl.arange(0, PADDED)[:, None], tl.arange(0, KV_PADDED)[:, None]
    place, kv_place = head * 2 * HALF + column, kv_head * 2 * HALF + column
    inside, kv_inside = (head < HEADS) & (column < HALF), (kv_head < KV_HEADS) & (column < HALF)
    size, kv_size = HEADS * 2 * HALF, KV_HEADS * 2 * HALF
    q_first, q_second = tl.zeros([PADDED, HALF], tl.float32), tl.zeros([PADDED, HALF], tl.float32)
    k_first, k_second = tl.zeros([KV_PADDED, HALF], tl.float32), tl.zeros([KV_PADDED, HALF], tl.float32)
    token, step = program.to(tl.int64), tl.num_programs(0).to(tl.int64)
    for _ in range(program, tokens, tl.num_programs(0)):
        row = token * (size + 2 * kv_size)
        cos, sin = tl.load(cos_at + token * HALF + column), tl.load(sin_at + token * HALF + column)
        qa, qb, share_a, share_b = _head_back(
            qkv_at + row + place, d_query_at + token * size + place, q_norm_at, cos, sin, column, inside, epsilon, HALF
        )
        q_first, q_second = q_first + share_a, q_second + share_b
        ka, kb, share_a, share_b = _head_back(
            qkv_at + row + size + kv_place, d_key_at + token * kv_size + kv_place, k_norm_at, cos, sin, column,
            kv_inside, epsilon, HALF,
        )  # fmt: skip
        k_first, k_second = k_first + share_a, k_second + share_b
        d_value = d_value_at + token * kv_size + kv_place
        va, vb = tl.load(d_value, kv_inside, 0.0).to(tl.float32), tl.load(d_value + HALF, kv_inside, 0.0).to(tl.float32)
        largest = tl.maximum(_largest(qa, qb), tl.maximum(_largest(ka, kb), _largest(va, vb)))
        factor, scale = _scales(largest)
        out = out_at + row + place
        tl.store(out, (qa * factor).to(tl.float8e4nv), inside)
        tl.store(out + HALF, (qb * factor).to(tl.float8e4nv), inside)
        out = out_at + row + size + kv_place
        tl.store(out, (ka * factor).to(tl.float8e4nv), kv_inside)
        tl.store(out + HALF, (kb * factor).to(tl.float8e4nv), kv_inside)
        tl.store(out + kv_size, (va * factor).to(tl.float8e4nv), kv_inside)
        tl.store(out + kv_size + HALF, (vb * factor).to(tl.float8e4nv), kv_inside)
        tl.store(scale_at + token, scale)
        token += step
    if q_norm_at is not None:
        share = program * 2 * HALF + tl.arange(0, HALF)
        tl.store(d_q_norm_at + share, tl.sum(q_first, 0))
        tl.store(d_q_norm_at + share + HALF, tl.sum(q_second, 0))
        tl.store(d_k_norm_at + share, tl.sum(k_first, 0))
        tl.store(d_k_norm_at + share + HALF, tl.sum(k_second, 0))


@triton.jit
def _head_back(x_at, d_out_at, weight_at, cos, sin, column, inside, epsilon, HALF: tl.constexpr):
    """Both halves of the heads' gradient from that of the rotated ones, and their share of the norm's."""
    low, high = tl.load(d_out_at, inside, 0.0).to(tl.float32), tl.load(d_out_at + HALF, inside, 0.0).to(tl.float32)
    da, db = low * cos + high * sin, high * cos - low * sin
    first, second = da, db  # without a norm of no use
    if weight_at is not None:
        a = tl.load(x_at, inside, 0.0).to(tl.float32)
        b = tl.load(x_at + HALF, inside, 0.0).to(tl.float32)
        factor = tl.rsqrt((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / (2 * HALF) + epsilon)[:, None]
        a, b = a * factor, b * factor
        first, second = da * a, db * b
        da, db = da * tl.load(weight_at + column), db * tl.load(weight_at + HALF + column)
        mean = ((tl.sum(da * a, 1) + tl.sum(db * b, 1)) / (2 * HALF))[:, None]
        da, db = factor * (da - a * mean), factor * (db - b * mean)
    return da, db, first, second


@triton.jit
def _largest(a, b):
    return tl.max(tl.maximum(tl.abs(a), tl.abs(b)))
