"""FlashAttention-4 in place of the FlashAttention-3 that nanochat takes from a hub, for pretrain_nanochat.py."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

TOLERANCE = 0.02
"""Of the largest number; bfloat16 rounds by 0.004."""


def take_kernel(device: torch.device, flash4: bool) -> str:
    """Make its model use the best kernel that is there, and name it: flash3, flash4 or sdpa.

    sdpa has no kernel for sliding windows; then all layers should see all, as its script advises.
    """
    from nanochat import flash_attention  # type: ignore[reportMissingImports]

    if flash_attention.USE_FA3:
        return "flash3"
    if device.type == "cpu" or not flash4:
        return "sdpa"
    _check(device)
    flash_attention.USE_FA3, flash_attention._fa3 = True, Flash4
    return "flash4"


def _check(device: torch.device) -> None:
    """Forward and backward against torch's attention with a mask; raises where they differ by more than rounding."""
    width, left = 512, 128
    q, k, v = (torch.randn(2, width, 2, 128, device=device, dtype=torch.bfloat16).requires_grad_() for _ in range(3))
    here = torch.arange(width, device=device)
    back = here[:, None] - here[None]
    mask = (back >= 0) & (back <= left)
    theirs = scaled_dot_product_attention(*(one.transpose(1, 2) for one in (q, k, v)), attn_mask=mask).transpose(1, 2)
    both = [Flash4.flash_attn_func(q, k, v, True, (left, 0)), theirs]
    gradients = [torch.autograd.grad(one.float().square().sum(), (q, k, v)) for one in both]
    for mine, other in zip((both[0], *gradients[0]), (both[1], *gradients[1]), strict=True):
        difference = float(((mine - other).abs().max() / other.abs().max()).detach())
        if difference > TOLERANCE:
            raise ValueError(f"FlashAttention-4 with windows is off by {difference:.2g}: use --peer-attention sdpa")


class Flash4:
    """FlashAttention-3's function by FlashAttention-4."""

    @staticmethod
    def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, causal: bool, window_size: tuple[int, int]) -> Tensor:
        """Causal attention of [rows, width, heads, size]; a window as wide as the row is none."""
        assert causal
        left = window_size[0] if 0 <= window_size[0] < q.shape[1] else None
        return _flash4(q, k, v, left)[0]


@torch.library.custom_op("benchmarks::flash4", mutates_args=())
def _flash4(q: Tensor, k: Tensor, v: Tensor, left: int | None) -> tuple[Tensor, Tensor]:
    from flash_attn.cute.interface import _flash_attn_fwd  # type: ignore[reportMissingImports]

    scale = q.shape[-1] ** -0.5
    out, sums, *_ = _flash_attn_fwd(
        q, k, v, softmax_scale=scale, causal=True, return_lse=True, window_size_left=left, window_size_right=0
    )
    return out, sums


@_flash4.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, left: int | None) -> Any:
    return torch.empty_like(q), q.new_empty((q.shape[0], q.shape[2], q.shape[1]), dtype=torch.float32)


@torch.library.custom_op("benchmarks::flash4_backward", mutates_args=())
def _flash4_backward(
    gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, sums: Tensor, left: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    from flash_attn.cute.interface import _flash_attn_bwd  # type: ignore[reportMissingImports]

    window = {"window_size_left": left, "window_size_right": 0}
    found = _flash_attn_bwd(q, k, v, out, gradient, sums, q.shape[-1] ** -0.5, True, **window)
    return found[0], found[1], found[2]


@_flash4_backward.register_fake
def _(gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any) -> Any:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.left = inputs
    ctx.save_for_backward(*tensors, *output)


def _differentiate(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Any, ...]:
    return *_flash4_backward(gradient.contiguous(), *ctx.saved_tensors, ctx.left), None


_flash4.register_autograd(_differentiate, setup_context=_keep)
