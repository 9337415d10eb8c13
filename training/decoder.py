"""The forward pass of Llama and Qwen3 models on a GPU, computed from a Hugging Face model's own parameters.

The model stays what it is: the same modules, the same names, the same weights. What differs from its own forward is
that queries, keys and values are one product, as are gate and up; that weights are float32 and products bfloat16; that
each layer is one compiled function; and that attention stays inside documents.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from training.attention import Kernel, Layout, attend
from training.loss import linear_cross_entropy

Recompute = Literal["none", "attention", "full"]
"""What the backward pass computes again: nothing, all but attention, all."""


@dataclass(frozen=True)
class Shape:
    """The numbers of one layer."""

    heads: int
    kv_heads: int
    width: int
    epsilon: float


class Decoder(nn.Module):
    """Runs one model. `dtype` is that of products and activations; weights and their gradients stay float32.

    Its modules are those of the model, so that FSDP2 finds the parameters of a layer when the layer is called.
    """

    def __init__(
        self, model: Any, dtype: torch.dtype, kernel: Kernel, recompute: Recompute = "none", compile: bool = True
    ) -> None:
        super().__init__()
        config, inner = model.config, model.model
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = Shape(config.num_attention_heads, config.num_key_value_heads, width, config.rms_norm_eps)
        run: Any = partial(_layer, shape=shape, kernel=kernel)
        if recompute != "none":
            run = partial(_again, run, recompute)
        if compile:
            run = torch.compile(run, fullgraph=True, dynamic=False)
        self.kernel: Kernel = kernel
        self.dtype, self.epsilon = dtype, config.rms_norm_eps
        self.embedding, self.norm, self.head = inner.embed_tokens, inner.norm, model.lm_head
        self.layers = nn.ModuleList(Layer(layer, run) for layer in inner.layers)
        self.rotary = inner.rotary_emb
        self.last_norm: Any = torch.compile(_norm, dynamic=False) if compile else _norm

    def forward(
        self, tokens: Tensor, labels: Tensor, positions: Tensor, layout: Layout, scale: Tensor, z_loss: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """The loss to go back from, and the sum of cross entropies times `scale`.

        Tokens, labels and positions are int64 [rows, seq_len].
        """
        hidden = self.hidden(tokens, positions, layout)
        return linear_cross_entropy(hidden, self.head.weight, labels.flatten(), scale, z_loss)

    def hidden(self, tokens: Tensor, positions: Tensor, layout: Layout) -> Tensor:
        """The last layer's output after its norm, [rows * seq_len, hidden_size]."""
        x = nn.functional.embedding(tokens.flatten(), self.embedding.weight).to(self.dtype)
        cos, sin = self._rotary(positions.flatten())
        for layer in self.layers:
            x = layer(x, cos, sin, layout)
        return self.last_norm(x, self.norm.weight, self.epsilon)

    def _rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of every token's angles, float32 [tokens, width / 2]."""
        angles = positions[:, None].float() * self.rotary.inv_freq.float()[None]
        scaling = getattr(self.rotary, "attention_scaling", 1.0)
        return angles.cos() * scaling, angles.sin() * scaling


class Layer(nn.Module):
    """One layer of the model, run by a function of its weights."""

    def __init__(self, layer: nn.Module, run: Any) -> None:
        super().__init__()
        self.layer, self.run = layer, run

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, layout: Layout) -> Tensor:
        """The layer on x [tokens, hidden_size]."""
        return self.run(x, cos, sin, layout, *_weights(self.layer))


def _weights(layer: Any) -> tuple[Tensor | None, ...]:
    attention, mlp = layer.self_attn, layer.mlp
    norms = [getattr(attention, name).weight if hasattr(attention, name) else None for name in ("q_norm", "k_norm")]
    return (
        layer.input_layernorm.weight, attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight, *norms,
        attention.o_proj.weight, layer.post_attention_layernorm.weight,
        mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight,
    )  # fmt: skip


def _layer(
    x: Tensor, cos: Tensor, sin: Tensor, layout: Layout,
    norm1: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, q_norm: Tensor | None, k_norm: Tensor | None, w_o: Tensor,
    norm2: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor,
    *, shape: Shape, kernel: Kernel,
) -> Tensor:  # fmt: skip
    """One decoder layer on x [tokens, hidden_size]."""
    heads, kv_heads, width, epsilon = shape.heads, shape.kv_heads, shape.width, shape.epsilon
    qkv = _product(_norm(x, norm1, epsilon), torch.cat([w_q, w_k, w_v]))
    query, key, value = qkv.view(len(x), heads + 2 * kv_heads, width).split([heads, kv_heads, kv_heads], 1)
    if q_norm is not None and k_norm is not None:
        query, key = _norm(query, q_norm, epsilon), _norm(key, k_norm, epsilon)
    query, key = _rotate(query, cos, sin), _rotate(key, cos, sin)
    mixed = attend(query, key, value.contiguous(), layout, kernel, width**-0.5)
    x = x + _product(mixed.reshape(len(x), -1), w_o)
    gate, up = _product(_norm(x, norm2, epsilon), torch.cat([w_gate, w_up])).chunk(2, -1)
    return x + _product(silu(gate) * up, w_down)


def _product(x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight.to(x.dtype).T


def _norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Root mean square norm over the last dimension, in float32."""
    values = x.float()
    return (values * torch.rsqrt(values.square().mean(-1, keepdim=True) + epsilon) * weight).to(x.dtype)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions on x [tokens, heads, width]; a pair is one number of each half, as in Hugging Face models."""
    first, second = x.float().chunk(2, -1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)


_COSTLY = [
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._flash_attention_forward.default,
    torch.ops.tokenmill.flash4.default,
    torch.ops.higher_order.flex_attention,
]


def _again(run: Any, recompute: Recompute, *arguments: Any) -> Tensor:
    """The layer, with activations that are computed again on the way back."""
    keep = partial(create_selective_checkpoint_contexts, _COSTLY) if recompute == "attention" else None
    context: dict[str, Any] = {} if keep is None else {"context_fn": keep}
    return checkpoint(run, *arguments, use_reentrant=False, **context)  # type: ignore[no-any-return]
