"""Answers of a model on a GPU: each token of all rows is one launch of a recorded CUDA graph.

By `generate` a CPU launches the kernels of every token one by one, and a small model's kernels end sooner.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, StaticCache
from transformers.cache_utils import StaticLayer

WARM = 2
"""Tokens before the graph is made, so that libraries have allocated what they need."""
LOOK = 8
"""Tokens between two looks at whether all answers have ended: each waits for the GPU."""


def has_graph(model: Any) -> bool:
    """Whether a token of this model always runs the same kernels: full attention, rotations that no length changes."""
    rotation = (getattr(model.config, "rope_parameters", None) or {}).get("rope_type", "default")
    return (
        all(type(layer) is StaticLayer for layer in StaticCache(config=model.config, max_cache_len=8).layers)
        and rotation not in ("dynamic", "longrope")
        and model.config._attn_implementation == "sdpa"
    )


def cache_bytes(model: Any, tokens: int) -> int:
    """Of the keys and values of so many tokens, those of all rows."""
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * head * model.dtype.itemsize * tokens


class TokenGraph:
    """Stands for `generate` of a model whose weights change in place, for so many `rows` of at most `length` tokens.

    `config` says how many tokens are added, for which `length` has room beside the prompts, and which end an answer; of
    sampling, only its temperature is heard.
    """

    def __init__(self, model: Any, rows: int, length: int, config: GenerationConfig) -> None:
        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=model.device)

        self.model, self.config = model, config
        self.cache = StaticCache(config=model.config, max_cache_len=length)
        self.ends = torch.tensor(config.eos_token_id, device=model.device).flatten()
        self.tokens = zeros(rows, length)
        self.last, self.position = zeros(rows, 1), zeros(rows, 1)
        self.column = zeros(1)  # of the next token
        self.seen = zeros(rows, 1, 1, length, dtype=torch.bool)
        self.done = zeros(rows, dtype=torch.bool)
        self.graph: torch.cuda.CUDAGraph | None = None

    @torch.no_grad()
    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Prompts, int64 [rows, width], padded on the left as the mask says, and their answers, padded on the right."""
        width, new = input_ids.shape[1], self.config.max_new_tokens
        mask = attention_mask.bool()
        positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
        self.cache.reset()
        self.tokens[:, :width] = input_ids
        self.position.copy_(positions[:, -1:])
        self.column.fill_(width)
        self.seen.zero_()[:, 0, 0, :width] = mask
        self.done.zero_()
        self._take(self._logits(input_ids, positions, self._causal(width)))
        for step in range(1, new):
            if step % LOOK == 0 and bool(self.done.all()):
                break
            if self.graph is None and step > WARM and input_ids.is_cuda:
                self.graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                    self._step()
            if self.graph is None:
                self._step()
            else:
                self.graph.replay()
        made = self.tokens[:, width : int(self.column)]
        ended = torch.isin(made, self.ends)
        lengths = torch.where(ended.any(1), ended.int().argmax(1) + 1, made.shape[1])
        return self.tokens[:, : width + int(lengths.max())].clone()

    def _step(self) -> None:
        """Read the last token of every row and take the next."""
        self.seen.index_fill_(3, self.column - 1, True)
        self.position.add_(1)
        self._take(self._logits(self.last, self.position, self.seen))

    def _logits(self, tokens: Tensor, positions: Tensor, seen: Tensor) -> Tensor:
        out = self.model(
            input_ids=tokens, attention_mask=seen, position_ids=positions, past_key_values=self.cache, use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
        return out.logits[:, -1].float()

    def _take(self, logits: Tensor) -> None:
        if self.config.do_sample:  # as torch.multinomial draws one, which looks whether the numbers are sound and waits
            odds = torch.softmax(logits / (self.config.temperature or 1.0), -1)
            logits = odds / torch.empty_like(odds).exponential_(1)
        token = logits.argmax(-1, keepdim=True).masked_fill(self.done[:, None], self.config.pad_token_id)
        self.last.copy_(token)
        self.tokens.index_copy_(1, self.column, token)
        self.done.logical_or_((token == self.ends).any(1))
        self.column.add_(1)

    def _causal(self, width: int) -> Tensor:
        """What each token of the prompts sees, [rows, 1, width, length]; padding sees itself and stays finite."""
        columns = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        own = columns[:width, None]
        return (columns <= own) & self.seen | (columns == own)
