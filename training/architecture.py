"""A decoder by its few numbers, and what a token of it costs."""

import math
from typing import Any, Literal, Self

from pydantic import model_validator

from data_curation.settings import Settings, outside_identity

ASPECT = 64
"""Width per layer."""
HEADS = (128, 64, 32)
"""Widths of a head, the widest of which there are four: attention is fastest on GPUs at 128."""


class Rope(Settings):
    """Rotary positions of one phase, as transformers' config.json says them."""

    theta: float
    """Base of the angles."""
    factor: float | None = None
    """YaRN: how many times `original` positions the model is to read (Peng et al. 2023); none: plain positions."""
    original: int | None = None
    """YaRN: sequence length of the last phase with plain positions."""

    def parameters(self) -> dict[str, Any]:
        """`rope_parameters` of a transformers config."""
        plain = {"rope_type": "default", "rope_theta": self.theta}
        if self.factor is None:
            return plain
        yarn = {"factor": self.factor, "original_max_position_embeddings": self.original}
        return plain | yarn | {"rope_type": "yarn"}


class ModelConfig(Settings):
    """A decoder of a published architecture, by its few numbers; the defaults are 438M matmul parameters.

    `depth` or `parameters` alone is enough: what else is not said follows from it.
    """

    depth: int | None = outside_identity(None, ge=1)
    """Layers, each 64 wide, in heads of 128 (nanochat's d20 is 20); loss depends little on the aspect (Kaplan 2020)."""
    parameters: float | None = outside_identity(None, gt=0)
    """Parameters without embeddings, nearly; depth and width of that aspect follow. Give this or depth or neither."""
    family: Literal["llama", "qwen3"] = "qwen3"
    """Model class in transformers; `qwen3` is Llama with normalised queries and keys."""
    hidden_size: int = 1280
    """Width of the residual stream."""
    layers: int = 20
    """Number of decoder layers."""
    heads: int = 10
    """Attention heads."""
    kv_heads: int = 10
    """Heads of keys and values, shared between groups of attention heads."""
    head_dim: int | None = None
    """Width of a head; none: hidden_size / heads. 128 is the fastest on GPUs."""
    intermediate_size: int = 3456
    """Width of the feed-forward layer; 8/3 of hidden_size keeps three matrices at the cost of two (Shazeer 2020)."""
    tie_embeddings: bool = True
    """One matrix for input embeddings and output logits: fewer parameters, usual below 2B."""
    initializer_range: float = 0.02
    """Standard deviation of the initial weights."""

    @model_validator(mode="before")
    @classmethod
    def _by_size(cls, data: Any) -> Any:
        if isinstance(data, dict) and (data.get("depth") or data.get("parameters")):
            return shape_of(data.get("depth"), data.get("parameters")) | data
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("hidden_size", "layers", "heads", "kv_heads", "intermediate_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"pretrain.model.{name} is {getattr(self, name)}: give 1 or more")
        if self.depth and self.parameters:
            raise ValueError(
                f"pretrain.model has depth ({self.depth}) and parameters ({self.parameters:g}): give one of them"
            )
        if self.hidden_size % self.heads:
            raise ValueError(
                f"pretrain.model.hidden_size ({self.hidden_size}) must be divisible by heads ({self.heads})"
            )
        if self.heads % self.kv_heads:
            raise ValueError(f"pretrain.model.heads ({self.heads}) must be divisible by kv_heads ({self.kv_heads})")
        if self.head_width % 2:
            raise ValueError(f"pretrain.model.head_dim is {self.head_width}: rotary positions need an even number")
        return self

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.head_dim or self.hidden_size // self.heads

    def flops_per_token(self, seq_len: int, vocabulary: int) -> float:
        """Training FLOPs of a token: 6 per matmul parameter plus causal attention, half counted (PaLM, appendix B)."""
        attention = self.hidden_size * self.head_width * 2 * (self.heads + self.kv_heads)
        parameters = self.layers * (attention + 3 * self.hidden_size * self.intermediate_size)
        parameters += vocabulary * self.hidden_size
        return 6.0 * parameters + 6.0 * self.layers * self.heads * self.head_width * seq_len


def shape_of(depth: Any, parameters: Any) -> dict[str, int]:
    """Layers, width, heads and feed-forward width of a decoder of so many layers, or so many parameters.

    A layer of width w has about 12 w^2 parameters. From 2,048 wide on, groups of heads share keys and values, eight or
    a few more of them (Ainslie et al. 2023; Llama 3).
    """
    try:
        layers = int(depth) if depth else max(1, round((float(parameters) / (12 * ASPECT**2)) ** (1 / 3)))
        width = ASPECT * layers if depth else math.sqrt(float(parameters) / (12 * layers))
    except (TypeError, ValueError, OverflowError):
        return {}  # the field's own check says what is wrong
    if layers < 1:
        return {}
    head = next(size for size in HEADS if width >= 4 * size or size == HEADS[-1])
    heads = max(1, math.ceil(width / head) if depth else round(width / head))
    hidden, inner = heads * head, math.ceil(8 / 3 * heads) * head
    kv_heads = next(number for number in range(8, heads + 1) if heads % number == 0) if hidden >= 2048 else heads
    if parameters:
        layers = max(1, round(float(parameters) / hidden / (2 * (hidden + kv_heads * head) + 3 * inner)))
    shape = {"layers": layers, "hidden_size": hidden, "heads": heads, "kv_heads": kv_heads}
    return shape | {"intermediate_size": inner}
