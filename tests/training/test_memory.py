"""Passes that fit into a GPU's memory: the arithmetic against measured peaks, and what is chosen."""

import math
from typing import Any

import pytest
from transformers import Qwen3Config

from training.memory import USED, Load, Passes, Recompute, passes

H100 = 85e9
"""Bytes that torch counts of an H100 80 GB."""


def config(width: int, layers: int, heads: int, kv_heads: int, inner: int) -> Any:
    """A model's sizes."""
    return Qwen3Config(
        vocab_size=32768, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=128,
    )  # fmt: skip


D20, B1 = config(1280, 20, 10, 10, 3456), config(2048, 18, 16, 8, 5632)
B8 = config(4096, 32, 32, 8, 14336)
PARAMETERS = {id(D20): 480e6, id(B1): 983e6, id(B8): 8.05e9}


def load(of: Any, row: int, shares: int = 1) -> Load:
    """One rank's load, of rows of so many tokens."""
    return Load(of, PARAMETERS[id(of)] / shares, row)


@pytest.mark.parametrize(
    ("of", "tokens", "recompute", "peak"),
    [(D20, 65536, "none", 68.3), (B1, 32768, "none", 53.8), (D20, 131072, "attention", 24.3),
     (B1, 131072, "attention", 39.0)],
)  # fmt: skip
def test_the_arithmetic_is_that_of_measured_peaks(of: Any, tokens: int, recompute: Recompute, peak: float) -> None:
    """GiB that H100s held (benchmarks/results/pretrain.json): hardly more than expected."""
    expected = load(of, tokens).bytes(1, [recompute] * of.num_hidden_layers) / 2**30
    assert 0.98 <= expected / peak <= 1.25


def test_float32_takes_twice_the_activations() -> None:
    """So a pass that fits in bfloat16 becomes smaller."""
    half, whole = load(D20, 8192), Load(D20, PARAMETERS[id(D20)], 8192, size=4)
    assert whole.kept("none") == 2 * half.kept("none")
    assert passes(half, 8, 65536, H100).rows == 8 and passes(whole, 8, 65536, H100).rows == 4


@pytest.mark.parametrize("of", [D20, B1])
def test_nothing_is_computed_again_where_it_fits(of: Any) -> None:
    """At 2k and at 32k on one H100, in passes of as many tokens as asked for."""
    for row, rows in ((2048, 64), (32768, 4)):
        found = passes(load(of, row), rows, 32768, H100)
        assert found.rows * row == 32768 and set(found.recompute) == {"none"}
        assert found.bytes <= USED * H100


def test_a_pass_becomes_smaller_before_anything_is_computed_again() -> None:
    """8B on 64 GPUs: rows of 8k one by one, not four at once, unless the size of a pass was asked for."""
    found = passes(load(B8, 8192, 64), 16, 32768, H100)
    assert found.rows == 1 and set(found.recompute) == {"none"}
    asked = passes(load(B8, 8192, 64), 16, 32768, H100, smaller=False)
    assert asked.rows == 4 and set(asked.recompute) != {"none"} and asked.bytes <= USED * H100
    assert passes(load(B8, 1024, 8), 64, 32768, 60e9).rows * 1024 >= 8192  # and not so small that a GPU idles


@pytest.mark.parametrize(("of", "memory"), [(D20, H100), (B1, H100), (D20, 30e9), (B8, 3e11), (D20, 25e9)])
def test_as_many_layers_as_fit_are_kept(of: Any, memory: float) -> None:
    """Of a row of 128k: the last layers whole, before them attention, before them nothing; no more would fit."""
    one = load(of, 131072)
    found = passes(one, 1, 32768, memory)
    order: list[Recompute] = ["full", "attention", "none"]
    levels = [order.index(each) for each in found.recompute]
    assert levels == sorted(levels) and levels[0] < 2
    assert found.bytes == one.bytes(1, found.recompute) <= USED * memory
    first = max(number for number, level in enumerate(levels) if level < 2)
    more: list[Recompute] = [*found.recompute]
    more[first] = order[levels[first] + 1]
    assert one.bytes(1, more) > USED * memory


def test_what_never_fits_keeps_least() -> None:
    """The estimate may err, so it is tried; without a limit nothing is computed again."""
    least = passes(load(B8, 131072), 1, 32768, 1e9)
    assert set(least.recompute) == {"full"}
    none = passes(load(B8, 131072), 1, 32768, math.inf)
    assert isinstance(none, Passes) and set(none.recompute) == {"none"}
