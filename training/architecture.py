"""A decoder by its few numbers, and what a token of it costs."""

from typing import Literal, Self

from pydantic import model_validator

from data_curation.settings import Settings


class ModelConfig(Settings):
    """A decoder of a published architecture, by its few numbers; the defaults are 438M matmul parameters."""

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
    intermediate_size: int = 3584
    """Width of the feed-forward layer."""
    tie_embeddings: bool = True
    """One matrix for input embeddings and output logits: fewer parameters, usual below 2B."""
    initializer_range: float = 0.02
    """Standard deviation of the initial weights."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("hidden_size", "layers", "heads", "kv_heads", "intermediate_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"pretrain.model.{name} is {getattr(self, name)}: give 1 or more")
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
