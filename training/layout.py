"""Where documents lie in a batch, in the form that each attention kernel wants."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from training.context import Context

Kernel = Literal["flash4", "flex", "flash2", "sdpa"]
BLOCK = 128
"""Tokens on a side of one of flex's blocks."""


@dataclass(frozen=True)
class Borders:
    """Documents for the flash kernels: int32, of queries and of keys the first token of each and the number of all.

    They are repeated up to a fixed length; a length of its own for every batch would compile the layers again.
    """

    queries: Tensor
    keys: Tensor
    unseen: Tensor | None = None
    """Keys that no query of these may look at."""


@dataclass(frozen=True)
class Layout:
    """Where documents lie in a batch of `rows` rows of `width` tokens."""

    rows: int
    width: int
    alone: bool
    """Whether every row is one document."""
    borders: tuple[Borders, ...] = ()
    """For the flash kernels; two with context parallelism, for the front and the back chunks."""
    blocks: BlockMask | None = None
    """The same for flex."""
    pieces: tuple[tuple[slice, slice], ...] = ()
    """The same for sdpa on a CPU: queries and the keys of their document up to the last of them."""
    mask: Tensor | None = None
    """Which token may look at which, [rows, 1, width, width], for sdpa on a GPU."""
    context: Context | None = None
    """Ranks that share the rows: keys are those of whole rows then, queries this rank's."""


def layout_of(documents: np.ndarray, device: torch.device, kernel: Kernel, context: Context | None = None) -> Layout:
    """From the documents' numbers per token, [rows, seq_len]; a change of number starts a document."""
    rows, width = documents.shape
    new = np.ones(documents.shape, dtype=bool)
    new[:, 1:] = documents[:, 1:] != documents[:, :-1]
    first = np.flatnonzero(new)
    alone = len(first) == rows
    begin = np.repeat(first, np.diff(first, append=rows * width))  # of each token's document
    if context is not None:
        parts = [_queries(rows, width, context, chunk) for chunk in context.chunks()]
        if kernel == "flex":
            blocks = _blocks(begin, np.concatenate(parts).reshape(-1), device)
            return Layout(rows, width, alone, blocks=blocks, context=context)
        if kernel == "sdpa":
            return Layout(rows, width, alone, pieces=_shared_pieces(begin, parts, device), context=context)
        borders = tuple(_shared_borders(begin, width, part, device) for part in parts)
        return Layout(rows, width, alone, borders=borders, context=context)
    if alone and kernel != "flash2":  # without a mask cuDNN is faster than flex
        return Layout(rows, width, alone)
    if kernel == "flex":
        return Layout(rows, width, alone, blocks=_blocks(begin, np.arange(rows * width), device))
    if kernel == "sdpa" and device.type == "cpu":  # no time goes into pairs of tokens that may not see each other
        ends = np.append(first[1:], rows * width)
        spans = [slice(start, end) for start, end in zip(first.tolist(), ends.tolist(), strict=True)]
        return Layout(rows, width, alone, pieces=tuple((span, span) for span in spans))
    if kernel == "sdpa":
        numbers = torch.from_numpy(documents).to(device)
        mask = (numbers[:, None, :, None] == numbers[:, None, None, :]).tril()
        return Layout(rows, width, alone, mask=mask)
    starts = _repeated(np.append(first, rows * width), device)
    return Layout(rows, width, alone, borders=(Borders(starts, starts),))


def _queries(rows: int, width: int, context: Context, chunk: int) -> np.ndarray:
    """Where in the whole rows the tokens of a chunk stand, [rows, chunk's tokens]."""
    size, rest = divmod(width, 2 * context.ranks)
    if rest:
        raise ValueError(f"{width} tokens are no whole number of {2 * context.ranks} chunks")
    return np.arange(rows)[:, None] * width + np.arange(chunk * size, (chunk + 1) * size)


def _segments(begin: np.ndarray, part: np.ndarray) -> list[list[tuple[int, int]]]:
    """Of each row of queries the (first, last + 1) of its documents' tokens."""
    found: list[list[tuple[int, int]]] = []
    for line in part:
        starts = line[np.flatnonzero(np.diff(begin[line], prepend=-1))]
        found.append(list(zip(starts.tolist(), [*starts[1:].tolist(), int(line[-1]) + 1], strict=True)))
    return found


def _shared_borders(begin: np.ndarray, width: int, part: np.ndarray, device: torch.device) -> Borders:
    """Of one chunk of every row; keys before and after it are documents without queries."""
    queries, keys = [0], [0]
    unseen = np.ones(len(begin), dtype=bool)
    for row, segments in enumerate(_segments(begin, part)):
        first = int(begin[segments[0][0]])
        queries.append(queries[-1])
        keys.append(first)
        for start, stop in segments:
            queries.append(queries[-1] + stop - start)
            keys.append(stop)
        queries.append(queries[-1])
        keys.append((row + 1) * width)
        unseen[first : segments[-1][1]] = False
    return Borders(_repeated(np.array(queries), device), _repeated(np.array(keys), device), to_device(unseen, device))


def _shared_pieces(begin: np.ndarray, parts: list[np.ndarray], device: torch.device) -> tuple[tuple[slice, slice], ...]:
    if device.type != "cpu":
        raise ValueError("context parallelism on a GPU needs flash4, flex or flash2")
    found: list[tuple[slice, slice]] = []
    at = 0
    for start, stop in (segment for part in parts for row in _segments(begin, part) for segment in row):
        found.append((slice(at, at + stop - start), slice(int(begin[start]), stop)))
        at += stop - start
    return tuple(found)


def _repeated(starts: np.ndarray, device: torch.device) -> Tensor:
    """Up to the next power of two."""
    padded = np.full(1 << len(starts).bit_length(), starts[-1], dtype=np.int32)
    padded[: len(starts)] = starts
    return to_device(padded, device)


def _blocks(begin: np.ndarray, queries: np.ndarray, device: torch.device) -> BlockMask:
    """Which blocks of keys each block of queries needs: from its first token's document on to itself.

    `begin` has the first token of each key's document, `queries` which tokens ask. Built from the borders: asking every
    pair of tokens takes as long as the attention of a layer.
    """
    tokens = len(begin)
    if tokens % BLOCK or len(queries) % BLOCK or (queries[::BLOCK] % BLOCK).any():
        raise ValueError(f"{len(queries)} of {tokens} tokens are no whole number of blocks of {BLOCK}")
    row = queries[::BLOCK] // BLOCK  # the block of keys in which each block of queries stands
    low = begin[row * BLOCK] // BLOCK  # the earliest block that any query of the block sees
    # Whole blocks: wholly before the queries, and inside the document of all of them.
    latest = begin[row * BLOCK + BLOCK - 1]
    whole = np.maximum(low, -(-latest // BLOCK))
    part, full = (np.zeros((len(row), tokens // BLOCK), dtype=np.int32) for _ in range(2))
    parts, fulls = np.zeros(len(row), dtype=np.int32), np.zeros(len(row), dtype=np.int32)
    for index, block in enumerate(row.tolist()):
        some = np.append(np.arange(low[index], min(whole[index], block)), block)
        part[index, : len(some)], parts[index] = some, len(some)
        rest = np.arange(whole[index], block)
        full[index, : len(rest)], fulls[index] = rest, len(rest)
    documents, asking = to_device(begin.astype(np.int32), device), to_device(queries.astype(np.int32), device)

    def inside(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        place = asking[query]
        return (documents[place] == documents[key]) & (place >= key)

    tensors = [to_device(one, device)[None, None] for one in (parts, part, fulls, full)]
    return BlockMask.from_kv_blocks(*tensors, BLOCK_SIZE=BLOCK, mask_mod=inside, seq_lengths=(len(queries), tokens))


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """An array's numbers there, without waiting for a GPU."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
