"""What training keeps of a GPU's memory, and how large passes are and what they compute again so that it fits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from data_curation.settings import StageError

Recompute = Literal["none", "attention", "full"]
"""What the backward pass computes again of a layer: nothing, all but attention, all."""

USED = 0.88
"""Share of a GPU's memory to plan with: the loss, communication and gaps between tensors take the rest."""
FIXED = 18
"""Bytes of a parameter: float32 weight, gradient and AdamW's two moments, and the bfloat16 copy of a pass."""
ENOUGH = 8192
"""Tokens of a pass from which on a GPU is busy: smaller passes cost more than they save by computing nothing again."""


@dataclass(frozen=True)
class Passes:
    """How the rows of a step are gone through."""

    rows: int
    """Of one pass."""
    recompute: list[Recompute]
    """Of each layer. The last ones keep the most: their memory is free again before the first ones need theirs."""
    bytes: float
    """That the step is expected to take, on a GPU."""


@dataclass(frozen=True)
class Load:
    """What lies on one rank."""

    config: Any
    """transformers' config of the model."""
    parameters: float
    """This rank's share."""
    row: int
    """Tokens of this rank in one row."""
    context: int = 1
    """Ranks that share a row; the keys of all of it lie on each."""
    size: int = 2
    """Bytes of one activation: 4 where is computed in float32."""

    def bytes(self, rows: int, recompute: Sequence[Recompute]) -> float:
        """Of a pass of so many rows. Where layers are computed again, one of them is there whole at a time."""
        layers = sum(self.kept(one) for one in recompute)
        if any(one != "none" for one in recompute):
            layers += self.kept("none")
        return FIXED * self.parameters + rows * self.row * layers

    def kept(self, recompute: Recompute) -> int:
        """Bytes of one token in one layer until the way back.

        Measured peaks of d20 and 1B on an H100 are at most 1% above and 20% below (tests/training/test_memory.py).
        """
        config = self.config
        width, inner = config.hidden_size, config.intermediate_size
        head = getattr(config, "head_dim", None) or width // config.num_attention_heads
        queries, keys = head * config.num_attention_heads, head * config.num_key_value_heads
        numbers = {
            "none": 4 * width + 3 * queries + (2 + 2 * self.context) * keys + 3 * inner,
            "attention": width + queries + 2 * config.num_attention_heads,  # the softmax's divisor is float32
            "full": width,
        }
        return self.size * numbers[recompute]


def full(name: str, remedies: str, error: Exception) -> StageError:
    """What a stage ends with when torch finds no more memory on the GPU."""
    return StageError(f"{name}: its passes do not fit into the GPU's memory: {remedies} ({str(error).splitlines()[0]})")


def passes(load: Load, rows: int, tokens: int, memory: float, smaller: bool = True) -> Passes:
    """Passes over `rows` rows of at most `tokens` tokens (one row at least), in a GPU's `memory` bytes.

    The largest pass of which nothing is computed again. Where none fits, the smallest that keeps a GPU busy, with as
    many layers as fit kept whole, and of the others their attention. Not `smaller`: the largest pass alone counts.
    """
    sizes = [size for size in range(rows, 0, -1) if rows % size == 0 and size * load.row <= max(tokens, load.row)]
    sizes = [size for size in sizes if size == sizes[0] or (smaller and size * load.row >= ENOUGH)]
    nothing: list[Recompute] = ["none"] * load.config.num_hidden_layers
    for size in sizes:
        if load.bytes(size, nothing) <= USED * memory:
            return Passes(size, nothing, load.bytes(size, nothing))
    found: list[Recompute] = ["full"] * len(nothing)
    steps: tuple[Recompute, ...] = ("attention", "none")
    for better in steps:
        for layer in reversed(range(len(found))):
            some: list[Recompute] = [*found[:layer], better, *found[layer + 1 :]]
            if load.bytes(sizes[-1], some) > USED * memory:
                break
            found = some
    return Passes(sizes[-1], found, load.bytes(sizes[-1], found))
