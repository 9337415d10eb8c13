"""The forward pass of Llama and Qwen3 models on a GPU, computed from a Hugging Face model's own parameters.

The model stays what it is: the same modules, the same names, the same weights. What differs from its own forward is
that queries, keys and values are one product, as are gate and up; that weights are float32 and products bfloat16; that
each layer is one compiled function; and that attention stays inside documents.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from training import float8_layer
from training.attention import attend
from training.layout import Kernel, Layout
from training.loss import linear_cross_entropy
from training.memory import Recompute
from training.mlp import gated_mlp
from training.norms import Fusion, norm_product, rms_norm
from training.rotary import Heads, rotated_heads

LAYERS_COMPILED = 64
"""So many layers that differ in sizes, lengths or kernels may one process compile; torch's own limit is 8."""


class Decoder(nn.Module):
    """Runs one model. `dtype` is that of products and activations; weights and their gradients stay float32.

    With `float8` products of layers take 8 bits (`fusion` then does not count), all else `dtype`. `recompute` holds for
    all layers, or is one for each.

    Its modules are those of the model, so that FSDP2 finds the parameters of a layer when the layer is called.
    """

    def __init__(
        self,
        model: Any,
        dtype: torch.dtype,
        kernel: Kernel,
        recompute: Recompute | Sequence[Recompute] = "none",
        compile: bool = True,
        fusion: Fusion = "compiled",
        float8: bool = False,
    ) -> None:
        super().__init__()
        config, inner = model.config, model.model
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = Heads(config.num_attention_heads, config.num_key_value_heads, width, config.rms_norm_eps)
        run: Any = partial(_layer, shape=shape, kernel=kernel, fusion=fusion)
        if float8:
            run = partial(_float8_layer, shape=shape, kernel=kernel)
        each: list[Recompute] = [recompute] * len(inner.layers) if isinstance(recompute, str) else [*recompute]
        if compile:
            torch._dynamo.config.recompile_limit = LAYERS_COMPILED
        runs = {one: _function(run, one, compile) for one in set(each)}
        self.kernel: Kernel = kernel
        self.dtype, self.epsilon = dtype, config.rms_norm_eps
        self.embedding, self.norm, self.head = inner.embed_tokens, inner.norm, model.lm_head
        self.layers = nn.ModuleList(
            Layer(layer, runs[one], one != "none") for layer, one in zip(inner.layers, each, strict=True)
        )
        self.float8 = float8
        self.rotary = inner.rotary_emb
        self.last_norm: Any = torch.compile(_add_norm, dynamic=False) if compile else _add_norm

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
        delta = torch.zeros_like(x)  # what a layer adds; the next one's first kernel does the sum
        for layer in self.layers:
            if layer.recomputes:  # then one tensor is kept, not two
                x, delta = x + delta, None
            x, delta = layer(x, delta, cos, sin, layout)
        return self.last_norm(x, delta, self.norm.weight, self.epsilon)

    def _rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of every token's angles, float32 [tokens, width / 2]."""
        angles = positions[:, None].float() * self.rotary.inv_freq.float()[None]
        scaling = getattr(self.rotary, "attention_scaling", 1.0)
        return angles.cos() * scaling, angles.sin() * scaling


class Layer(nn.Module):
    """One layer of the model, run by a function of its weights."""

    def __init__(self, layer: nn.Module, run: Any, recomputes: bool) -> None:
        super().__init__()
        self.layer, self.run, self.recomputes = layer, run, recomputes

    def forward(
        self, x: Tensor, delta: Tensor | None, cos: Tensor, sin: Tensor, layout: Layout
    ) -> tuple[Tensor, Tensor]:
        """The layer on x + delta [tokens, hidden_size]: a new pair whose sum is the layer's output."""
        return self.run(x, delta, cos, sin, layout, *_weights(self.layer))


def _weights(layer: Any) -> tuple[Tensor | None, ...]:
    attention, mlp = layer.self_attn, layer.mlp
    norms = [getattr(attention, name).weight if hasattr(attention, name) else None for name in ("q_norm", "k_norm")]
    return (
        layer.input_layernorm.weight, attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight, *norms,
        attention.o_proj.weight, layer.post_attention_layernorm.weight,
        mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight,
    )  # fmt: skip


def _layer(
    x: Tensor, delta: Tensor | None, cos: Tensor, sin: Tensor, layout: Layout,
    norm1: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, q_norm: Tensor | None, k_norm: Tensor | None, w_o: Tensor,
    norm2: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor,
    *, shape: Heads, kernel: Kernel, fusion: Fusion,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """One decoder layer on x + delta [tokens, hidden_size]."""
    x, qkv = norm_product(x, delta, norm1, torch.cat([w_q, w_k, w_v]), shape.epsilon, fusion)
    query, key, value = rotated_heads(qkv, q_norm, k_norm, cos, sin, shape, fusion)
    mixed = attend(query, key, value, layout, kernel, shape.width**-0.5)
    delta = _product(mixed.reshape(len(x), -1), w_o)
    return gated_mlp(x, delta, norm2, w_gate, w_up, w_down, shape.epsilon, fusion)


def _float8_layer(
    x: Tensor, delta: Tensor | None, cos: Tensor, sin: Tensor, layout: Layout,
    norm1: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, q_norm: Tensor | None, k_norm: Tensor | None, w_o: Tensor,
    norm2: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor,
    *, shape: Heads, kernel: Kernel,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The same with products in 8 bits."""
    weight = torch.cat([w_q, w_k, w_v])
    x, query, key, value = float8_layer.first_half(x, delta, norm1, weight, q_norm, k_norm, cos, sin, shape)
    mixed = attend(query, key, value, layout, kernel, shape.width**-0.5).reshape(len(x), -1)
    return float8_layer.second_half(x, mixed, w_o, norm2, torch.cat([w_gate, w_up]), w_down, shape.epsilon)


def _product(x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight.to(x.dtype).T


def _add_norm(x: Tensor, delta: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return rms_norm(x + delta, weight, epsilon)


_COSTLY = [
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._flash_attention_forward.default,
    torch.ops.tokenmill.flash4.default,
    torch.ops.higher_order.flex_attention,
]


def _function(run: Any, recompute: Recompute, compile: bool) -> Any:
    run = run if recompute == "none" else partial(_again, run, recompute)
    return torch.compile(run, fullgraph=True, dynamic=False) if compile else run


def _again(run: Any, recompute: Recompute, *arguments: Any) -> tuple[Tensor, Tensor]:
    """The layer, with activations that are computed again on the way back."""
    keep = partial(create_selective_checkpoint_contexts, _COSTLY) if recompute == "attention" else None
    context: dict[str, Any] = {} if keep is None else {"context_fn": keep}
    return checkpoint(run, *arguments, use_reentrant=False, **context)  # type: ignore[no-any-return]
