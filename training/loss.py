"""Cross entropy of a language model's last layer without ever holding all logits."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

CHUNK = 8192
"""Tokens whose logits exist at a time where none are trained."""
LOGITS = 2**29
"""Logits that exist at a time in training, 1 GB in bfloat16; fewer make more passes over the weight's gradient."""


class LinearCrossEntropy(torch.autograd.Function):
    """Sum over tokens of the cross entropy of `hidden @ weight.T`, times `scale`; labels of -100 count nothing.

    hidden [tokens, size], weight [vocabulary, size], labels [tokens]. The gradients are computed on the way forward,
    so that each chunk's logits are made once.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, scale: Tensor, z_loss: float
    ) -> tuple[Tensor, Tensor]:
        """The loss, and the cross entropy in it, float32 scalars."""
        low = weight.to(hidden.dtype)
        z_total, entropy = (torch.zeros((), dtype=torch.float32, device=hidden.device) for _ in range(2))
        d_hidden = torch.empty_like(hidden)
        d_weight = torch.zeros_like(weight, dtype=torch.float32)
        chunk = max(1, LOGITS // len(weight))
        for start in range(0, len(hidden), chunk):
            share = slice(start, start + chunk)
            logits = hidden[share] @ low.T
            some, z_some, d_logits = _softmax(logits, labels[share], scale, z_loss)
            entropy += some
            z_total += z_some
            torch.mm(d_logits, low, out=d_hidden[share])
            d_weight += d_logits.T @ hidden[share]
        ctx.save_for_backward(d_hidden, d_weight)
        ctx.mark_non_differentiable(entropy)
        return entropy + z_total, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """Gradients of hidden and weight."""
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden * gradients[0], d_weight * gradients[0], None, None, None


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, scale: Tensor, z_loss: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The loss to go back from, and the tokens' cross entropies in it: both summed, scaled, float32.

    `z_loss` weighs the squared logarithm of the softmax's divisor (Chowdhery et al. 2022, PaLM, section 5).
    """
    return LinearCrossEntropy.apply(hidden, weight, labels, scale, z_loss)  # type: ignore[no-any-return]


def _softmax(logits: Tensor, labels: Tensor, scale: Tensor, z_loss: float) -> tuple[Tensor, Tensor, Tensor]:
    """Cross entropy, z-loss and the gradient of the logits, all scaled; by one kernel on a GPU, in place on a CPU."""
    return (_compiled() if logits.device.type == "cuda" else in_place)(logits, labels, scale, z_loss)


@cache
def _compiled() -> Any:
    return torch.compile(at_once, dynamic=False)


def at_once(logits: Tensor, labels: Tensor, scale: Tensor, z_loss: float) -> tuple[Tensor, Tensor, Tensor]:
    """Without scattered writes, so that a compiler makes one kernel of it."""
    values = logits.float()
    divisor = values.logsumexp(-1, keepdim=True)
    weight = torch.where(labels >= 0, scale, 0.0)[:, None]
    safe = labels.clamp(min=0)[:, None]
    entropy = ((divisor - values.gather(1, safe)) * weight).sum()
    z_term = (z_loss * divisor.square() * weight).sum()
    column = torch.arange(logits.shape[1], device=logits.device)
    gradient = (values - divisor).exp() * (1 + 2 * z_loss * divisor) - (column == safe).float()
    return entropy, z_term, (gradient * weight).to(logits.dtype)


def in_place(logits: Tensor, labels: Tensor, scale: Tensor, z_loss: float) -> tuple[Tensor, Tensor, Tensor]:
    """With few passes over the memory."""
    values = logits.float().log_softmax(-1)
    divisor = (logits[:, 0].float() - values[:, 0])[:, None]
    weight = torch.where(labels >= 0, scale, 0.0)[:, None]
    safe = labels.clamp(min=0)[:, None]
    entropy = -(values.gather(1, safe) * weight).sum()
    z_term = (z_loss * divisor.square() * weight).sum()
    gradient = values.exp_().mul_((1 + 2 * z_loss * divisor) * weight).scatter_add_(1, safe, -weight)
    return entropy, z_term, gradient.to(logits.dtype)
