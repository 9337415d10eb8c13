"""Guarantees of attention: causal inside documents, the same from every kernel that runs here."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from training.attention import attend, kernel_for
from training.context import Context
from training.layout import BLOCK, Kernel, layout_of

CPU = torch.device("cpu")


def documents(rows: int, width: int, mean: int, seed: int = 0) -> np.ndarray:
    """Numbers of documents of random lengths, [rows, width]."""
    random = np.random.default_rng(seed)
    ends = np.cumsum(1 + random.geometric(1 / mean, (rows, width)), axis=1)
    return np.stack([np.searchsorted(line, np.arange(width), side="right") for line in ends])


def allowed(numbers: np.ndarray) -> torch.Tensor:
    """Which token of the batch laid end to end may look at which, by definition, [tokens, tokens]."""
    rows, width = numbers.shape
    whole = torch.from_numpy((numbers + np.arange(rows)[:, None] * width).reshape(-1))
    return (whole[:, None] == whole[None]) & torch.ones(rows * width, rows * width).tril().bool()


def reference(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Softmax attention by definition, in float64."""
    query, key, value = (one.double() for one in (query, key, value))
    key, value = (one.repeat_interleave(query.shape[1] // one.shape[1], 1) for one in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query, key) * query.shape[-1] ** -0.5
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~mask, float("-inf")).softmax(-1), value)


def random_inputs(tokens: int, heads: int, kv_heads: int) -> list[torch.Tensor]:
    """Queries, keys, values."""
    torch.manual_seed(1)
    return [torch.randn(tokens, number, 16) for number in (heads, kv_heads, kv_heads)]


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2)])
@pytest.mark.parametrize("mean", [3, 40, 10_000])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_every_kernel_gives_attention_by_definition(heads: int, kv_heads: int, mean: int) -> None:
    """Pieces, mask and flex agree with softmax over the allowed keys, packed rows and rows of one document alike."""
    numbers = documents(2, 2 * BLOCK, mean)
    inputs = random_inputs(numbers.size, heads, kv_heads)
    expected = reference(*inputs, allowed(numbers))
    for kernel in ("sdpa", "flex"):
        found = attend(*inputs, layout_of(numbers, CPU, kernel), kernel, 16**-0.5)
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


def test_the_mask_of_a_gpu_gives_the_gradients_of_the_pieces() -> None:
    """Both forms of sdpa on packed rows are one function of queries, keys and values."""
    numbers = documents(2, 64, 9)
    by_piece = layout_of(numbers, CPU, "sdpa")
    mask = torch.stack([allowed(line[None]) for line in numbers])[:, None]
    found: list[Any] = []
    for layout in (by_piece, type(by_piece)(2, 64, False, mask=mask)):
        inputs = [one.requires_grad_() for one in random_inputs(numbers.size, 4, 2)]
        out = attend(*inputs, layout, "sdpa", 0.25)
        found.append([out.detach(), *torch.autograd.grad(out.square().sum(), inputs)])
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_blocks_from_the_borders_cover_exactly_the_allowed_pairs(seed: int) -> None:
    """Every pair lies in a block that is listed if it is allowed; whole blocks hold allowed pairs only."""
    numbers = documents(3, 3 * BLOCK, [4, 60, 200, 129, 500, 10_000][seed], seed)
    blocks = layout_of(numbers, CPU, "flex").blocks
    if blocks is None:
        assert seed == 5  # rows of one document need none
        return
    size, pairs = numbers.size // BLOCK, allowed(numbers)
    covered = torch.zeros_like(pairs)
    index = torch.arange(numbers.size)
    partial = blocks.mask_mod(torch.tensor(0), torch.tensor(0), index[:, None], index[None])
    for row in range(size):
        for counts, columns, whole in (
            (blocks.kv_num_blocks, blocks.kv_indices, False),
            (blocks.full_kv_num_blocks, blocks.full_kv_indices, True),
        ):
            for column in columns[0, 0, row, : counts[0, 0, row]].tolist():
                share = (slice(row * BLOCK, (row + 1) * BLOCK), slice(column * BLOCK, (column + 1) * BLOCK))
                assert not covered[share].any(), "a block is listed twice"
                covered[share] = True if whole else partial[share]
    assert torch.equal(covered, pairs)


def test_borders_are_padded_to_a_few_sizes() -> None:
    """Batches of nearly as many documents have one shape, so that no kernel is compiled anew for each."""
    starts = [layout_of(documents(2, 256, 20, seed), CPU, "flash2").borders[0].queries for seed in range(8)]
    assert len({len(one) for one in starts}) <= 2
    for one in starts:
        assert one[0] == 0 and one[-1] == 512 and (one.diff() >= 0).all()


@pytest.mark.parametrize("mean", [3, 90, 10_000])
@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_ranks_that_share_rows_have_together_the_attention_of_one(ranks: int, mean: int) -> None:
    """Each rank's queries find their documents' keys in the whole rows, by pieces and by flex."""
    numbers = documents(2, 2 * ranks * BLOCK, mean)
    query, key, value = random_inputs(numbers.size, 4, 2)
    expected = reference(query, key, value, allowed(numbers))
    places = np.arange(numbers.size).reshape(numbers.shape)
    for rank in range(ranks):
        context = Context(ranks, rank)
        mine = torch.from_numpy(context.cut(places).reshape(-1))
        for kernel in ("sdpa", "flex"):
            layout = replace(layout_of(numbers, CPU, kernel, context), context=None)  # keys are gathered already
            found = attend(query[mine], key, value, layout, kernel, 16**-0.5)
            torch.testing.assert_close(found.double(), expected[mine], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mean", [3, 40, 10_000])
def test_borders_of_shared_rows_allow_exactly_the_allowed_pairs(mean: int) -> None:
    """What a flash kernel makes of them: of each document the queries are its last tokens."""
    numbers, pairs = documents(3, 64, mean), allowed(documents(3, 64, mean))
    places = np.arange(numbers.size).reshape(numbers.shape)
    for rank in range(4):
        context = Context(4, rank)
        halves = np.split(context.cut(places).reshape(-1), 2)
        for mine, borders in zip(halves, layout_of(numbers, CPU, "flash2", context).borders, strict=True):
            seen = torch.zeros(len(mine), numbers.size, dtype=torch.bool)
            edges = zip(borders.queries[:-1], borders.queries[1:], borders.keys[:-1], borders.keys[1:], strict=True)
            for q, q_stop, k, k_stop in edges:
                for number, query in enumerate(range(q, q_stop)):
                    seen[query, k : k_stop - (q_stop - q) + number + 1] = True
            assert torch.equal(seen, pairs[mine])
            assert borders.unseen is not None and not seen[:, borders.unseen].any()


@pytest.mark.parametrize(
    ("device", "wanted", "kernel"), [("cpu", "auto", "sdpa"), ("cpu", "flex", "flex"), ("cuda", "flash2", "flash2")]
)
def test_the_kernel_is_the_wanted_one_or_fits_the_device(device: str, wanted: Any, kernel: Kernel) -> None:
    """`auto` is plain attention on a CPU; a kernel that is named is taken."""
    assert kernel_for(torch.device(device), wanted, 256) == kernel
