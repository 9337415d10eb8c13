"""Answers of a model that trains on a GPU, sampled from a copy in bfloat16 by one graph a token.

Under autocast every weight is converted again for each token, and kernels of a few hundred rows end sooner than the
next ones are launched. A graph needs keys and values that stay in place, so rows come in a few widths.
"""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import CompileConfig, GenerationConfig

NARROWEST = 64
"""Tokens of the narrowest prompts; wider ones come in powers of two, each of which is compiled once."""
WORTH = 15_000
"""So many steps of one token are worth a graph: it takes 25 to 35 s to compile and saves 3 to 10 ms each (an H100, 116M
parameters, 512 rows)."""
SHARE = 0.5
"""Of a GPU's free memory, for keys and values that stay in place; above that they grow as answers do."""


class Sampler:
    """Stands for `generate` of a model whose weights change between calls; a CPU has no `graphs`, but their shapes."""

    def __init__(self, model: Any, dtype: torch.dtype = torch.bfloat16, graphs: bool = True) -> None:
        self.model, self.graphs = model, graphs
        self.copy = deepcopy(model).eval().requires_grad_(False)
        for parameter in self.copy.parameters():
            parameter.data = parameter.data.to(dtype)  # buffers, such as the rotation's, stay float32
        self.copy.config.use_cache = True

    @torch.no_grad()
    def __call__(
        self, input_ids: Tensor, attention_mask: Tensor, generation_config: GenerationConfig, **given: Any
    ) -> Tensor:
        """Prompts, padded on the left, and their answers, int64 [rows, prompt and answer], as `generate` has them."""
        for into, parameter in zip(self.copy.parameters(), self.model.parameters(), strict=True):
            into.copy_(parameter)
        settings, width, more = deepcopy(generation_config), input_ids.shape[1], 0
        settings.use_cache = True
        room = self.copy.config.max_position_embeddings - settings.max_new_tokens
        wide = max(width, min(NARROWEST, room), min(1 << (width - 1).bit_length(), room))
        if self.graphs and self._in_place(len(input_ids) * (wide + settings.max_new_tokens)):
            more = wide - width
            input_ids = pad(input_ids, (more, 0), value=settings.pad_token_id)
            attention_mask = pad(attention_mask, (more, 0))
            settings.cache_implementation, settings.disable_compile = "static", False
            if self.copy.device.type == "cuda":
                settings.compile_config = CompileConfig(dynamic=False)
        found = self.copy.generate(
            input_ids=input_ids, attention_mask=attention_mask, generation_config=settings, **given
        )
        return found[:, more:]

    def _in_place(self, tokens: int) -> bool:
        """Whether keys and values of so many tokens, those of whole rows, fit."""
        if self.copy.device.type != "cuda":
            return True
        config = self.copy.config
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        size = 2 * config.num_hidden_layers * config.num_key_value_heads * head * self.copy.dtype.itemsize
        reserved = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return tokens * size < SHARE * (torch.cuda.mem_get_info()[0] + reserved)
