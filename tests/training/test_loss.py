"""Guarantees of the chunked cross entropy: that of torch, gradients included, whatever the chunks."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from training import loss as losses


def inputs(tokens: int = 50) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, output matrix, labels of which some count nothing."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(tokens, 12), torch.randn(31, 12)
    labels = torch.randint(0, 31, (tokens,))
    labels[::7] = -100
    return hidden.requires_grad_(), weight.requires_grad_(), labels


def plain(hidden: Tensor, weight: Tensor, labels: Tensor, z_loss: float) -> Tensor:
    """The same from all logits at once."""
    logits = hidden @ weight.T
    total = cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
    return total + z_loss * logits[labels >= 0].logsumexp(-1).square().sum()


@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
@pytest.mark.parametrize("chunk", [7, 50, 8192])
def test_loss_and_gradients_are_those_of_torch(z_loss: float, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the last chunk is short, a label is -100, and the loss is scaled before and after."""
    hidden, weight, labels = inputs()
    monkeypatch.setattr(losses, "LOGITS", chunk * len(weight))
    found, entropy = losses.linear_cross_entropy(hidden, weight, labels, torch.tensor(0.25), z_loss)
    expected = plain(hidden, weight, labels, z_loss)
    torch.testing.assert_close(found, expected / 4)
    torch.testing.assert_close(entropy, plain(hidden, weight, labels, 0.0) / 4)
    torch.testing.assert_close(
        torch.autograd.grad(found * 8, (hidden, weight)), torch.autograd.grad(expected * 2, (hidden, weight))
    )


def test_without_a_label_there_is_no_loss_and_no_gradient() -> None:
    """A share of only ignored tokens adds exactly nothing."""
    hidden, weight, labels = inputs()
    loss, _ = losses.linear_cross_entropy(hidden, weight, torch.full_like(labels, -100), torch.tensor(1.0), 1e-2)
    loss.backward()
    assert loss == 0 and not hidden.grad.any() and not weight.grad.any()


def test_half_precision_is_near_single_precision() -> None:
    """Products of bfloat16 give loss and gradients within its rounding; the weight's gradient stays float32."""
    hidden, weight, labels = inputs(500)
    exact = torch.autograd.grad(plain(hidden, weight, labels, 0.0), (hidden, weight))
    low = hidden.detach().bfloat16().requires_grad_()
    loss, _ = losses.linear_cross_entropy(low, weight, labels, torch.tensor(1.0))
    found = torch.autograd.grad(loss, (low, weight))
    assert found[1].dtype == torch.float32
    for one, other in zip(found, exact, strict=True):
        assert (one.float() - other).norm() < 0.01 * other.norm()


@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
def test_the_form_for_compilers_is_the_form_in_place(z_loss: float) -> None:
    """Loss, z-loss and gradient agree."""
    torch.manual_seed(0)
    logits, labels = torch.randn(40, 31) * 5, torch.randint(0, 31, (40,))
    labels[::3] = -100
    torch.testing.assert_close(
        losses.at_once(logits, labels, torch.tensor(0.5), z_loss),
        losses.in_place(logits, labels, torch.tensor(0.5), z_loss),
    )
