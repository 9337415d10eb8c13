"""Causal attention inside documents by the fastest kernel that is there, all with one result.

`flash4` is FlashAttention-4 (optional package), `flex` torch's flex attention, `flash2` the FlashAttention-2 in torch,
`sdpa` scaled_dot_product_attention (cuDNN on a GPU). Every kernel takes queries [tokens, heads, width] and keys and
values [tokens, kv_heads, width] of a batch laid end to end, and gives [tokens, heads, width]. They agree within the
rounding of the numbers' type.
"""

import importlib.util
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

Kernel = Literal["flash4", "flex", "flash2", "sdpa"]
Attention = Literal["auto", "flash4", "flex", "flash2", "sdpa"]
BLOCK = 128
"""Tokens on a side of one of flex's blocks."""


@dataclass(frozen=True)
class Layout:
    """Where documents lie in a batch of `rows` rows of `width` tokens."""

    rows: int
    width: int
    alone: bool
    """Whether every row is one document."""
    starts: Tensor | None = None
    """int32, the first token of every document and the number of tokens, repeated up to a fixed length."""
    blocks: BlockMask | None = None
    """The same for flex."""
    pieces: tuple[tuple[int, int], ...] = ()
    """First token of every document and the token after its last, for sdpa on a CPU."""
    mask: Tensor | None = None
    """Which token may look at which, [rows, 1, width, width], for sdpa on a GPU."""


def kernel_for(device: torch.device, wanted: Attention, width: int) -> Kernel:
    """The kernel for a device: the wanted one, or with `auto` the fastest that is there and takes rows of `width`."""
    if wanted != "auto":
        return wanted
    if device.type != "cuda":
        return "sdpa"
    if _has_flash4():
        return "flash4"
    return "flex" if width % BLOCK == 0 else "flash2"


def layout_of(documents: np.ndarray, device: torch.device, kernel: Kernel) -> Layout:
    """From the documents' numbers per token, [rows, seq_len]; a change of number starts a document."""
    rows, width = documents.shape
    new = np.ones(documents.shape, dtype=bool)
    new[:, 1:] = documents[:, 1:] != documents[:, :-1]
    first = np.flatnonzero(new)
    alone = len(first) == rows
    if alone and kernel != "flash2":  # without a mask cuDNN is faster than flex
        return Layout(rows, width, alone)
    if kernel == "flex":
        return Layout(rows, width, alone, blocks=_blocks(first, rows * width, device))
    if kernel == "sdpa":
        return _for_sdpa(documents, first, device)
    # A length of its own for every batch would compile the layers again: it grows in powers of two.
    size = 1 << (len(first) + 1).bit_length()
    starts = np.full(size, rows * width, dtype=np.int32)
    starts[: len(first)] = first
    return Layout(rows, width, alone, starts=_to(starts, device))


def attend(query: Tensor, key: Tensor, value: Tensor, layout: Layout, kernel: Kernel, scale: float) -> Tensor:
    """Causal attention inside each document."""
    if kernel == "flash4":
        return _by_flash4(query, key, value, layout, scale)
    if kernel == "flash2":
        size = layout.width
        return torch.ops.aten._flash_attention_forward(
            query, key, value, layout.starts, layout.starts, size, size, 0.0, True, False, scale=scale
        )[0]
    if kernel == "flex" and layout.blocks is not None:
        query, key, value = (one.transpose(0, 1)[None] for one in (query, key, value))
        gqa = query.shape[1] != key.shape[1]
        out: Any = flex_attention(query, key, value, block_mask=layout.blocks, scale=scale, enable_gqa=gqa)
        return out[0].transpose(0, 1)
    return _by_sdpa(query, key, value, layout, scale)


def _by_sdpa(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float) -> Tensor:
    gqa = query.shape[1] != key.shape[1]
    if layout.pieces:
        return torch.cat([_piece(query[a:b], key[a:b], value[a:b], scale, gqa) for a, b in layout.pieces])
    shape = query.shape
    query, key, value = (
        one.view(layout.rows, layout.width, *one.shape[1:]).transpose(1, 2) for one in (query, key, value)
    )
    if layout.mask is not None:  # no kernel of a GPU takes both a mask and shared heads
        key, value = (one.repeat_interleave(query.shape[1] // one.shape[1], 1) for one in (key, value))
        out = scaled_dot_product_attention(query, key, value, attn_mask=layout.mask, scale=scale)
    elif query.device.type == "cuda":
        with sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION], set_priority=True):
            out = scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=gqa)
    else:
        out = scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=gqa)
    return out.transpose(1, 2).reshape(shape)


def _piece(query: Tensor, key: Tensor, value: Tensor, scale: float, gqa: bool) -> Tensor:
    query, key, value = (one.transpose(0, 1)[None] for one in (query, key, value))
    out = scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=gqa)
    return out[0].transpose(0, 1)


def _for_sdpa(documents: np.ndarray, first: np.ndarray, device: torch.device) -> Layout:
    rows, width = documents.shape
    if device.type == "cpu":  # no time goes into pairs of tokens that may not see each other
        ends = np.append(first[1:], rows * width)
        return Layout(rows, width, False, pieces=tuple(zip(first.tolist(), ends.tolist(), strict=True)))
    numbers = torch.from_numpy(documents).to(device)
    mask = (numbers[:, None, :, None] == numbers[:, None, None, :]).tril()
    return Layout(rows, width, False, mask=mask)


# ---- FlashAttention-4, an optional package, as operators that torch.compile keeps whole -----------------------------


@cache
def _has_flash4() -> bool:
    return (
        importlib.util.find_spec("flash_attn") is not None and importlib.util.find_spec("flash_attn.cute") is not None
    )


def _by_flash4(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float) -> Tensor:
    if layout.starts is not None:
        return _flash4(query, key, value, layout.starts, layout.width, scale)[0]
    rows = [one.view(layout.rows, layout.width, *one.shape[1:]) for one in (query, key, value)]
    return _flash4(*rows, None, layout.width, scale)[0].view(query.shape)


@torch.library.custom_op("tokenmill::flash4", mutates_args=())
def _flash4(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor | None, longest: int, scale: float
) -> tuple[Tensor, Tensor]:
    from flash_attn.cute.interface import _flash_attn_fwd  # type: ignore[reportMissingImports]

    out, logsumexp, *_ = _flash_attn_fwd(
        query, key, value, softmax_scale=scale, causal=True, return_lse=True, **_where(starts, longest)
    )
    return out, logsumexp


@_flash4.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, starts: Tensor | None, longest: int, scale: float) -> Any:
    *rows, heads, _ = query.shape
    shape = (heads, *rows) if starts is not None else (rows[0], heads, rows[1])
    return torch.empty_like(query), query.new_empty(shape, dtype=torch.float32)


@torch.library.custom_op("tokenmill::flash4_backward", mutates_args=())
def _flash4_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, logsumexp: Tensor,
    starts: Tensor | None, longest: int, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    from flash_attn.cute.interface import _flash_attn_bwd  # type: ignore[reportMissingImports]

    deterministic = torch.are_deterministic_algorithms_enabled()
    found = _flash_attn_bwd(
        query, key, value, out, gradient, logsumexp, scale, True, deterministic=deterministic,
        **_where(starts, longest),
    )  # fmt: skip
    return found[0], found[1], found[2]


@_flash4_backward.register_fake
def _(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Any:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, starts, ctx.longest, ctx.scale = inputs
    ctx.save_for_backward(query, key, value, starts, *output)


def _differentiate(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Any, ...]:
    query, key, value, starts, out, logsumexp = ctx.saved_tensors
    found = _flash4_backward(gradient.contiguous(), query, key, value, out, logsumexp, starts, ctx.longest, ctx.scale)
    return *found, None, None, None


_flash4.register_autograd(_differentiate, setup_context=_keep)


def _where(starts: Tensor | None, longest: int) -> dict[str, Any]:
    if starts is None:
        return {}
    return {"cu_seqlens_q": starts, "cu_seqlens_k": starts, "max_seqlen_q": longest, "max_seqlen_k": longest}


# ---- flex's block mask, straight from the documents' borders --------------------------------------------------------


def _blocks(first: np.ndarray, tokens: int, device: torch.device) -> BlockMask:
    """Which blocks of keys each block of queries needs: from its first token's document on to itself.

    Built from the borders: asking every pair of tokens takes as long as the attention of a layer.
    """
    if tokens % BLOCK:
        raise ValueError(f"{tokens} tokens are no whole number of blocks of {BLOCK}")
    number = tokens // BLOCK
    begin = np.repeat(first, np.diff(first, append=tokens))  # of each token's document
    row = np.arange(number)
    low = begin[row * BLOCK] // BLOCK  # the earliest block that any query of the block sees
    # Whole blocks: wholly before the queries, and inside the document of all of them.
    latest = begin[row * BLOCK + BLOCK - 1]
    whole = np.maximum(low, -(-latest // BLOCK))
    part, full = (np.zeros((number, number), dtype=np.int32) for _ in range(2))
    parts, fulls = np.zeros(number, dtype=np.int32), np.zeros(number, dtype=np.int32)
    for index in range(number):
        some = np.append(np.arange(low[index], min(whole[index], index)), index)
        part[index, : len(some)], parts[index] = some, len(some)
        rest = np.arange(whole[index], index)
        full[index, : len(rest)], fulls[index] = rest, len(rest)
    documents = _to(begin.astype(np.int32), device)

    def inside(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (documents[query] == documents[key]) & (query >= key)

    tensors = [_to(one, device)[None, None] for one in (parts, part, fulls, full)]
    return BlockMask.from_kv_blocks(*tensors, BLOCK_SIZE=BLOCK, mask_mod=inside, seq_lengths=(tokens, tokens))


def _to(array: np.ndarray, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
