"""Root mean square norms with what stands around them in a layer: the residual sum and the product.

Ways with one result, within rounding: `compiled` leaves kernels to torch.compile (or to eager torch on a CPU), `triton`
takes ours as operators that torch.compile keeps whole; so does `quack`, which mlp.py knows.
"""

import importlib.util
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

Fusion = Literal["compiled", "triton", "quack"]
WAVES, HEAD_WAVES = 4, 32
"""Programs per multiprocessor that walk over the tokens on the way back: of layers' norms, and of heads'."""


def fusion_for(device: torch.device, wanted: Literal["auto", "compiled", "triton", "quack"]) -> Fusion:
    """The way for a device: the wanted one, or with `auto` the fastest that is there; a CPU has one."""
    if device.type != "cuda":
        return "compiled"
    if wanted != "auto":
        return wanted
    hopper = torch.cuda.get_device_capability(device) >= (9, 0)  # quack's kernels need it
    return "quack" if hopper and importlib.util.find_spec("quack") is not None else "triton"


def norm_product(
    x: Tensor, delta: Tensor | None, norm: Tensor, weight: Tensor, epsilon: float, fusion: Fusion
) -> tuple[Tensor, Tensor]:
    """`x + delta` and the product of its norm with `weight`: x, delta [tokens, size], weight [out, size]."""
    low = weight.to(x.dtype)
    if fusion == "compiled":
        x = x if delta is None else x + delta
        return x, rms_norm(x, norm, epsilon) @ low.T
    if delta is None:
        return x, _norm_product(x, norm, low, epsilon)[1]
    total, _, out = _add_norm_product(x, delta, norm, low, epsilon)
    return total, out


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Root mean square norm over the last dimension, in float32."""
    values = x.float()
    return (values * torch.rsqrt(values.square().mean(-1, keepdim=True) + epsilon) * weight).to(x.dtype)


# ---- by Triton: norm and product ------------------------------------------------------------------------------------


# The norm is an output as well, so that it is kept: on the way back the product's weight needs it.


@torch.library.custom_op("tokenmill::norm_product", mutates_args=())
def _norm_product(x: Tensor, norm: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    normed = add_norm(x, None, norm, epsilon)[1]
    return normed, normed @ weight.T


@torch.library.custom_op("tokenmill::add_norm_product", mutates_args=())
def _add_norm_product(
    x: Tensor, delta: Tensor, norm: Tensor, weight: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    total, normed = add_norm(x, delta, norm, epsilon)
    return total, normed, normed @ weight.T


@torch.library.custom_op("tokenmill::norm_product_back", mutates_args=())
def _norm_product_back(
    total: Tensor, normed: Tensor, norm: Tensor, weight: Tensor, d_out: Tensor, d_total: Tensor | None, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of what was normed (with `d_total` added), of the norm's weight and of the product's."""
    dx, d_norm = add_norm_back(total, norm, d_out @ weight, d_total, epsilon)
    return dx, d_norm, d_out.T @ normed


def add_norm(x: Tensor, delta: Tensor | None, norm: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The sum and its norm; without `delta` the sum is x itself."""
    tokens, size = x.shape
    total, normed = x if delta is None else torch.empty_like(x), torch.empty_like(x)
    block, warps = _block(size)
    kernels().add_norm[(tokens,)](x, delta, norm, total, normed, epsilon, SIZE=size, BLOCK=block, num_warps=warps)
    return total, normed


def add_norm_back(
    total: Tensor, norm: Tensor, d_normed: Tensor, d_total: Tensor | None, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Gradients of the sum (with `d_total` added) and of the norm's weight."""
    tokens, size = total.shape
    dx = torch.empty_like(total)
    shares = shares_of(total.device, tokens, size)
    block, warps = _block(size)
    kernels().add_norm_back[(len(shares),)](
        total, norm, d_normed, d_total, dx, shares, tokens, epsilon, SIZE=size, BLOCK=block, num_warps=warps
    )
    return dx, shares.sum(0)


@_norm_product.register_fake
def _(x: Tensor, norm: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty((len(x), len(weight)))


@_add_norm_product.register_fake
def _(x: Tensor, delta: Tensor, norm: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x), x.new_empty((len(x), len(weight)))


@_norm_product_back.register_fake
def _(total: Tensor, normed: Tensor, norm: Tensor, weight: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(total), torch.empty_like(norm), torch.empty_like(weight)


def _keep_norm(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, norm, weight, ctx.epsilon = inputs
    ctx.save_for_backward(x, output[0], norm, weight)


def _keep_add_norm(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, _, norm, weight, ctx.epsilon = inputs
    ctx.save_for_backward(*output[:2], norm, weight)


def _norm_gradients(ctx: Any, _: Any, d_out: Tensor) -> tuple[Any, ...]:
    return *_norm_product_back(*ctx.saved_tensors, d_out.contiguous(), None, ctx.epsilon), None


def _add_norm_gradients(ctx: Any, d_total: Tensor, _: Any, d_out: Tensor) -> tuple[Any, ...]:
    found = _norm_product_back(*ctx.saved_tensors, d_out.contiguous(), d_total.contiguous(), ctx.epsilon)
    return found[0], *found, None


_norm_product.register_autograd(_norm_gradients, setup_context=_keep_norm)
_add_norm_product.register_autograd(_add_norm_gradients, setup_context=_keep_add_norm)


@cache
def kernels() -> Any:
    """The module of Triton's kernels, which needs that package."""
    from training import triton_kernels

    return triton_kernels


def padded(number: int) -> int:
    """The next power of two."""
    return 1 << (number - 1).bit_length()


def _block(size: int) -> tuple[int, int]:
    """Numbers that a program holds, a power of two, and the warps for them."""
    block = padded(size)
    return block, min(8, max(1, block // 1024))


def shares_of(device: torch.device, tokens: int, size: int, waves: int = WAVES) -> Tensor:
    """A row for every program of a way back: as many as keep a GPU busy."""
    some = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
    return torch.empty((min(tokens, waves * some), size), dtype=torch.float32, device=device)
