"""Guarantees of products in 8 bits: kernels round as torch does, gradients and curves stay near those of float32."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu

from data_curation.settings import ConfigError
from tests.training.phases import config
from tests.training.rounded import exact_product, in_8_bits, plain, rounded
from tests.training.test_decoder import batch, by_decoder, by_hugging_face, model
from training import decoder, float8, float8_layer
from training.decoder import Decoder
from training.float8 import FORMAT
from training.layout import layout_of
from training.norms import rms_norm
from training.passes import decoder_for
from training.rotary import Heads, rotated_heads

pytest.importorskip("triton")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DOCUMENTS = np.array([[0] * 8, [0, 0, 0, 1, 1, 1, 1, 1]])
SHAPE = Heads(4, 2, width=16, epsilon=1e-6)


@pytest.fixture(autouse=True)
def rounding(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Triton's interpreter forgets to carry where a number rounds up to the next power of two: torch rounds for it."""
    import triton.language as tl
    from triton.runtime import interpreter

    usual = interpreter._convert_float

    def rounded(x: np.ndarray, kind: Any, wanted: Any, mode: Any) -> np.ndarray:
        if wanted.name != "fp8e4nv":
            return usual(x, kind, wanted, mode)
        plain = x if kind == tl.float32 else usual(x, kind, tl.float32, mode).view(np.float32)
        return torch.from_numpy(np.ascontiguousarray(plain)).to(FORMAT).view(torch.uint8).numpy().reshape(x.shape)

    monkeypatch.setattr(interpreter, "_convert_float", rounded)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # those of torch wait for the interpreter
    yield
    torch.set_num_threads(threads)


def made(*shape: int) -> Tensor:
    """Random numbers whose rows differ a thousandfold."""
    return torch.randn(shape, device=DEVICE) * torch.logspace(-2, 1, shape[0], device=DEVICE)[:, None]


@pytest.mark.parametrize("size", [16, 48, 304])
def test_rows_are_rounded_as_torch_does_and_turned_without_another_rounding(size: int) -> None:
    """Rows that differ by less than the format's range keep every digit when they get one scale."""
    torch.manual_seed(0)
    x = made(40, size)
    found = float8.rows_of(x)
    assert torch.equal(plain(found), rounded(x))
    turned = float8.turned(found)
    assert turned.scale.unique().numel() == 1 and turned.values.is_contiguous()
    error = (plain(turned).T - plain(found)).abs()
    assert torch.equal(plain(turned).T[-4:], plain(found)[-4:])
    assert float(error.max()) <= float(turned.scale[0]) * 2**-10  # half of the format's smallest number


def test_numbers_that_are_none_stay_none_and_rows_of_zeros_stay_zeros() -> None:
    """A bad step is seen in its loss, not hidden by the format's largest number."""
    x = torch.ones(4, 32, device=DEVICE)
    x[1, 3], x[2] = float("nan"), 0.0
    found = plain(float8.rows_of(x))
    assert found[1].isnan().any() and not found[[0, 2, 3]].isnan().any()
    assert torch.equal(found[[0, 2, 3]], x[[0, 2, 3]])


@pytest.mark.parametrize("size", [32, 304])
@pytest.mark.parametrize("added", [True, False], ids=["sum", "alone"])
def test_norm_and_swiglu_are_rounded_once(size: int, added: bool) -> None:
    """What the kernels write is the rounded result of torch, forward and back."""
    torch.manual_seed(0)
    x, delta, norm = made(21, size), made(21, size) if added else None, torch.randn(size, device=DEVICE)
    total, normed = float8.add_norm(x, delta, norm, 1e-6)
    assert torch.equal(total, x if delta is None else x + delta)
    near(plain(normed), rounded(rms_norm(total, norm, 1e-6)))
    both, d_inner = made(21, 2 * size).requires_grad_(), made(21, size)
    gate, up = both.chunk(2, 1)
    inner = silu(gate) * up
    near(plain(float8.swiglu(both)), rounded(inner.detach()))
    inner.backward(d_inner)
    assert both.grad is not None
    near(plain(float8.swiglu_back(both, d_inner)), rounded(both.grad))


@pytest.mark.parametrize("normed", [True, False], ids=["qwen3", "llama"])
def test_gradients_of_norms_and_heads_are_rounded_once(normed: bool) -> None:
    """With weights' gradients as exact as without 8 bits."""
    torch.manual_seed(0)
    x, norm, d_out, d_total = made(21, 40).requires_grad_(), torch.randn(40).to(DEVICE), made(21, 40), made(21, 40)
    norm.requires_grad_()
    dx, d_norm, low = float8.add_norm_back(x, norm, d_out, d_total, 1e-6, low=True)
    wanted = torch.autograd.grad(rms_norm(x, norm, 1e-6), [x, norm], d_out)
    near(dx, wanted[0] + d_total, 1e-5)
    near(d_norm, wanted[1], 1e-5)
    assert low is not None
    near(plain(low), rounded(wanted[0] + d_total))
    qkv, angles = made(21, 128).requires_grad_(), torch.randn(21, 8, device=DEVICE)
    norms = [torch.randn(16, device=DEVICE).requires_grad_() if normed else None for _ in range(2)]
    heads = rotated_heads(qkv, *norms, angles.cos(), angles.sin(), SHAPE, "compiled")
    d_heads = [torch.randn_like(one) for one in heads]
    inputs = [one for one in (qkv, *norms) if one is not None]
    expected = torch.autograd.grad(heads, inputs, d_heads)
    d_qkv, *d_norms = float8.rotate_back(qkv, *norms, angles.cos(), angles.sin(), d_heads, 1e-6)
    near(plain(d_qkv), rounded(expected[0]))
    for one, other in zip(d_norms, expected[1:], strict=False):
        near(one, other, 1e-5)


def near(found: Tensor, expected: Tensor, error: float = 4e-3) -> None:
    """By default: but for the few numbers that lie between two, which another order of sums rounds the other way."""
    assert found.shape == expected.shape
    assert (found - expected).norm() <= error * expected.norm()


def one_layer() -> Any:
    """A model of one layer, for the interpreter is slow."""
    made = model("qwen3", 2, True)
    made.model.layers = made.model.layers[:1]
    return made


def by_float8(made: Any, documents: np.ndarray, recompute: Any = "none", compile: bool = False) -> list[Tensor]:
    """Loss and gradients by the decoder, on the device, back on the CPU."""
    made = made.to(DEVICE)
    tensors = [one.to(DEVICE) for one in batch(documents)]
    forward = Decoder(made, torch.float32, "sdpa", recompute, compile=False, float8=True)
    if compile:  # what is left to compile on a CPU: one graph a layer
        for layer in forward.layers:
            layer.run = torch.compile(layer.run, fullgraph=True, dynamic=False, backend="aot_eager")
    layout = layout_of(documents, DEVICE, "sdpa")
    total, _ = forward(*tensors, layout, torch.tensor(1.0, device=DEVICE))
    return [one.cpu() for one in (total.detach(), *torch.autograd.grad(total, list(made.parameters())))]


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_those_of_float32(dtype: torch.dtype, fast: bool) -> None:
    """Within the output's rounding and that of the tensor cores' sums."""
    torch.manual_seed(0)
    a, b = (float8.rows_of(made(rows, 256)) for rows in (48, 32))
    found = float8.product(a, b, dtype, fast)
    assert found.dtype == dtype
    near(found.float(), exact_product(a, b, torch.float32))


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_model_is_transformers_own_with_products_of_rounded_numbers(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss and every gradient: nothing but the products' inputs is rounded, and these once."""
    if DEVICE.type == "cuda":  # what its sums lose rounds numbers of the next product the other way
        for module in (float8, float8_layer):
            monkeypatch.setattr(module, "product", exact_product)
    found = by_float8(model(family, 2, True), DOCUMENTS)
    for one, other in zip(found, by_hugging_face(in_8_bits(model(family, 2, True)), DOCUMENTS), strict=True):
        near(one, other)
    exact = by_decoder(model(family, 2, True), DOCUMENTS)
    near(found[0], exact[0], 0.01)
    for one, other in zip(found[1:], exact[1:], strict=True):  # of 16 tokens: nothing averages out
        near(one, other, 0.35)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's own compiler does what it warns of
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("recompute", ["none", "attention", "full"])
def test_recomputation_and_compiling_change_no_bit(
    recompute: Any, compile: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scales follow from the numbers themselves, so what is computed again is the same again."""
    found = by_float8(one_layer(), DOCUMENTS, recompute, compile)
    if DEVICE.type == "cpu":
        for one, other in zip(found, by_float8(one_layer(), DOCUMENTS), strict=True):
            assert torch.equal(one, other)
    # The same sums, which a layer that keeps all takes in other kernels, on a GPU by other roundings.
    monkeypatch.setattr(decoder, "checkpoint", lambda run, *arguments, **_: run(*arguments))
    for one, other in zip(found, by_float8(one_layer(), DOCUMENTS, recompute), strict=True):
        assert torch.equal(one, other)


def test_a_training_learns_as_fast_as_with_float32() -> None:
    """Twelve steps on one batch: each loss within a few hundredths, the last far below the first."""
    curves: list[list[float]] = []
    for step in (by_float8, by_decoder):
        made = one_layer()
        optimizer = torch.optim.AdamW(made.parameters(), lr=3e-3)
        curves.append([])
        for _ in range(12):
            loss, *found = step(made, DOCUMENTS)
            for parameter, gradient in zip(made.parameters(), found, strict=True):
                parameter.grad = gradient.to(parameter.device)
            optimizer.step()
            curves[-1].append(float(loss))
    assert curves[0] == pytest.approx(curves[1], rel=0.05)
    assert curves[0][-1] < 0.5 * curves[0][0]


def test_a_device_without_such_products_is_refused() -> None:
    """Before any work."""
    with pytest.raises(ConfigError, match=r"pretrain\.dtype is float8, which needs a GPU"):
        decoder_for(config(dtype="float8").run_of(0), one_layer(), torch.device("cpu"), "none")
