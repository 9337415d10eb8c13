"""Causal attention inside documents by the fastest kernel that is there, all with one result.

`flash4` is FlashAttention-4 (optional package), `flex` torch's flex attention, `flash2` the FlashAttention-2 in torch,
`sdpa` scaled_dot_product_attention (cuDNN on a GPU). Every kernel takes queries [tokens, heads, width] and keys and
values [tokens, kv_heads, width] of a batch laid end to end, and gives [tokens, heads, width]. They agree within the
rounding of the numbers' type.
"""

import importlib.util
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import scaled_dot_product_attention

from training.layout import BLOCK, Borders, Kernel, Layout

Attention = Literal["auto", "flash4", "flex", "flash2", "sdpa"]


def kernel_for(device: torch.device, wanted: Attention, width: int) -> Kernel:
    """The kernel for a device: the wanted one, or with `auto` the fastest that is there and takes rows of `width`."""
    if wanted != "auto":
        return wanted
    if device.type != "cuda":
        return "sdpa"
    if _has_flash4():
        return "flash4"
    return "flex" if width % BLOCK == 0 else "flash2"


def attend(query: Tensor, key: Tensor, value: Tensor, layout: Layout, kernel: Kernel, scale: float) -> Tensor:
    """Causal attention inside each document."""
    if layout.context is not None:
        key, value = (layout.context.whole(one, layout.rows) for one in (key, value))
    if layout.borders:
        parts = zip(query.chunk(len(layout.borders)), layout.borders, strict=True)
        return torch.cat([_by_flash(part, key, value, borders, layout.width, kernel, scale) for part, borders in parts])
    if kernel == "flash4":
        rows = [one.view(layout.rows, layout.width, *one.shape[1:]) for one in (query, key, value)]
        return _flash4(*rows, None, None, layout.width, scale)[0].view(query.shape)
    if layout.blocks is not None:
        query, key, value = (one.transpose(0, 1)[None] for one in (query, key, value))
        gqa = query.shape[1] != key.shape[1]
        out: Any = flex_attention(query, key, value, block_mask=layout.blocks, scale=scale, enable_gqa=gqa)
        return out[0].transpose(0, 1)
    return _by_sdpa(query, key, value, layout, scale)


def _by_flash(
    query: Tensor, key: Tensor, value: Tensor, borders: Borders, longest: int, kernel: Kernel, scale: float
) -> Tensor:
    """Both kernels take the queries of a document for its last tokens where it has more keys."""
    if borders.unseen is not None:  # whatever the kernel leaves in their gradients is not one
        key, value = (torch.where(borders.unseen[:, None, None], 0, one) for one in (key, value))
    starts = borders.queries, borders.keys
    if kernel == "flash4":
        return _flash4(query, key, value, *starts, longest, scale)[0]
    return torch.ops.aten._flash_attention_forward(
        query, key, value, *starts, longest, longest, 0.0, True, False, scale=scale
    )[0]


def _by_sdpa(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float) -> Tensor:
    gqa = query.shape[1] != key.shape[1]
    if layout.pieces:
        pieces = layout.pieces
        return torch.cat([_piece(query[asking], key[seen], value[seen], scale, gqa) for asking, seen in pieces])
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
    """The queries are the last of the keys' tokens."""
    query, key, value = (one.transpose(0, 1)[None] for one in (query, key, value))
    if query.shape[2] == key.shape[2]:
        out = scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=gqa)
    else:
        later = key.shape[2] - query.shape[2]
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril(later)
        out = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=gqa)
    return out[0].transpose(0, 1)


# ---- FlashAttention-4, an optional package, as operators that torch.compile keeps whole -----------------------------


@cache
def _has_flash4() -> bool:
    return (
        importlib.util.find_spec("flash_attn") is not None and importlib.util.find_spec("flash_attn.cute") is not None
    )


@torch.library.custom_op("tokenmill::flash4", mutates_args=())
def _flash4(
    query: Tensor, key: Tensor, value: Tensor, queries: Tensor | None, keys: Tensor | None, longest: int, scale: float
) -> tuple[Tensor, Tensor]:
    from flash_attn.cute.interface import _flash_attn_fwd  # type: ignore[reportMissingImports]

    out, logsumexp, *_ = _flash_attn_fwd(
        query, key, value, softmax_scale=scale, causal=True, return_lse=True, **_where(queries, keys, longest)
    )
    return out, logsumexp


@_flash4.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, queries: Tensor | None, *_: Any) -> Any:
    rows, heads = query.shape[:-2], query.shape[-2]
    shape = (heads, *rows) if queries is not None else (rows[0], heads, rows[1])
    return torch.empty_like(query), query.new_empty(shape, dtype=torch.float32)


@torch.library.custom_op("tokenmill::flash4_backward", mutates_args=())
def _flash4_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, logsumexp: Tensor,
    queries: Tensor | None, keys: Tensor | None, longest: int, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    from flash_attn.cute.interface import _flash_attn_bwd  # type: ignore[reportMissingImports]

    deterministic = torch.are_deterministic_algorithms_enabled()
    found = _flash_attn_bwd(
        query, key, value, out, gradient, logsumexp, scale, True, deterministic=deterministic,
        **_where(queries, keys, longest),
    )  # fmt: skip
    return found[0], found[1], found[2]


@_flash4_backward.register_fake
def _(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Any:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, queries, keys, ctx.longest, ctx.scale = inputs
    ctx.save_for_backward(query, key, value, *output, queries, keys)


def _differentiate(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Any, ...]:
    return *_flash4_backward(gradient.contiguous(), *ctx.saved_tensors, ctx.longest, ctx.scale), *[None] * 4


_flash4.register_autograd(_differentiate, setup_context=_keep)


def _where(queries: Tensor | None, keys: Tensor | None, longest: int) -> dict[str, Any]:
    if queries is None:
        return {}
    return {"cu_seqlens_q": queries, "cu_seqlens_k": keys, "max_seqlen_q": longest, "max_seqlen_k": longest}
