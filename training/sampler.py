"""Answers of a model that trains on a GPU, sampled from a copy in bfloat16, by one graph a token where that pays.

Under autocast every weight is converted again for each token, and kernels of a few hundred rows end sooner than the
next ones are launched. The copy rounds what lies between layers, too, so samples are from a policy that differs from
the trained one by bfloat16's rounding, as those of vLLM do.
"""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from transformers import CompileConfig, GenerationConfig

WORTH = 15_000
"""So many steps of one token are worth a graph: it takes 25 to 35 s to compile and saves 3 to 10 ms each (an H100, 116M
parameters, 512 rows)."""
SHARE = 0.5
"""Of a GPU's free memory, for keys and values that stay in place; above that they grow as answers do."""


class Sampler:
    """Stands for `generate` of a model whose weights change between calls.

    Its prompts have up to `longest` tokens. A graph needs keys and values of one length, so there is but one; a CPU
    has no `graphs`, but their lengths.
    """

    def __init__(self, model: Any, longest: int, dtype: torch.dtype = torch.bfloat16, graphs: bool = True) -> None:
        self.model, self.longest, self.graphs = model, longest, graphs
        self.copy = deepcopy(model).eval().requires_grad_(False)
        for parameter in self.copy.parameters():
            parameter.data = parameter.data.to(dtype)  # buffers, such as the rotation's, stay float32
        self.compile_config = CompileConfig(dynamic=False) if model.device.type == "cuda" else None

    @torch.no_grad()
    def __call__(
        self, input_ids: Tensor, attention_mask: Tensor, generation_config: GenerationConfig, **given: Any
    ) -> Tensor:
        """Prompts, padded on the left, and their answers, int64 [rows, prompt and answer], as `generate` has them."""
        for into, parameter in zip(self.copy.parameters(), self.model.parameters(), strict=True):
            into.copy_(parameter)
        settings = deepcopy(generation_config)
        settings.use_cache = True  # whatever the model's configuration says: training turns it off
        length = self.longest + settings.max_new_tokens
        if self.graphs and self._fits(len(input_ids) * length):
            settings.cache_implementation, settings.max_cache_len = "static", length
            settings.disable_compile, settings.compile_config = False, self.compile_config
        return self.copy.generate(
            input_ids=input_ids, attention_mask=attention_mask, generation_config=settings, **given
        )

    def _fits(self, tokens: int) -> bool:
        if self.copy.device.type != "cuda":
            return True
        reserved = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return cache_bytes(self.copy, tokens) < SHARE * (torch.cuda.mem_get_info()[0] + reserved)


def cache_bytes(model: Any, tokens: int) -> int:
    """Of the keys and values of so many tokens, those of all rows."""
    config = model.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * config.num_key_value_heads * head * model.dtype.itemsize * tokens
