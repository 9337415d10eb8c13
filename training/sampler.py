"""Answers of a model that trains on a GPU, sampled from a copy in bfloat16: transformers' own or vLLM's.

Under autocast every weight is converted again for each token. A copy rounds what lies between layers, too, so samples
are from a policy that differs from the trained one by bfloat16's rounding.
"""

import importlib.util
import os
from collections.abc import Generator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import GenerationConfig

from data_curation.place import Place
from data_curation.settings import ConfigError
from training.token_graph import TokenGraph, cache_bytes, has_graph
from training.trainers import device_of

Engine = Literal["transformers", "vllm"]
SHARE = 0.25
"""Of a GPU's free memory, for keys and values that stay in place; above that they grow as answers do. What one token
takes besides, some tensors of [rows, vocabulary] in float32, is left to the rest."""
TRAINED = 12
"""Bytes a parameter of gradients and moments, which come after the first answers."""


def check_engine(engine: Engine, place: Place) -> None:
    """Refuse vLLM where it is not installed or where there is no GPU."""
    if engine == "vllm" and device_of(place) != "cuda":
        raise ConfigError(f"{place.name}.sampler is vllm, which samples on a GPU only: here is none; take transformers")
    if engine == "vllm" and importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            f"{place.name}.sampler is vllm, which is not installed: take transformers, or see docs/scaling.md"
        )


def engine_arguments(engine: Engine, memory: float, tokens: int) -> dict[str, Any]:
    """Arguments of TRL's trainers for answers by this engine.

    vLLM runs in the trainer's own process, on its GPU. It holds `memory` (a share of the GPU's) for a copy of the
    weights and for keys and values of rows with at most so many `tokens`, prompt and answer. For its sake torch gives
    unused memory back, and its statistics of usage are turned off in this process's environment.
    """
    if engine == "transformers":
        return {}
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    torch.cuda.empty_cache()  # vLLM takes its share of what the driver calls free, and starts once
    return {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": memory,
        "vllm_max_model_length": tokens,
    }


@contextmanager
def sampled(model: Any, engine: Engine, longest: int, place: Place) -> Generator[None]:
    """Within it `generate` of a model that trains on a GPU is a Sampler, whose memory is free again afterwards."""
    if engine != "transformers" or device_of(place) != "cuda":
        yield
        return
    model.generate = Sampler(model, longest)
    try:
        yield
    finally:
        del model.generate


class Sampler:
    """Stands for `generate` of a model whose weights change between calls, for prompts of up to `longest` tokens."""

    def __init__(self, model: Any, longest: int, dtype: torch.dtype = torch.bfloat16) -> None:
        self.model, self.longest = model, longest
        self.copy = deepcopy(model).eval().requires_grad_(False)
        for parameter in self.copy.parameters():
            parameter.data = parameter.data.to(dtype)  # buffers, such as the rotation's, stay float32
        self.copy.generation_config.use_cache = True  # training may have turned it off
        self.graph: TokenGraph | None = None

    @torch.no_grad()
    def __call__(
        self, input_ids: Tensor, attention_mask: Tensor, generation_config: GenerationConfig, **given: Any
    ) -> Tensor:
        """What `generate` of the model gives, with the weights that it has now."""
        for into, parameter in zip(self.copy.parameters(), self.model.parameters(), strict=True):
            into.copy_(parameter)
        rows, length = len(input_ids), self.longest + generation_config.max_new_tokens
        kept = self.graph is not None and self.graph.config is generation_config and len(self.graph.tokens) == rows
        if not kept:
            self.graph = None  # before the next one takes as much
            if has_graph(self.copy) and self._fits(rows * length):
                self.graph = TokenGraph(self.copy, rows, length, generation_config)
        if self.graph is None:
            return self.copy.generate(
                input_ids=input_ids, attention_mask=attention_mask, generation_config=generation_config, **given
            )
        return self.graph(input_ids, attention_mask)

    def _fits(self, tokens: int) -> bool:
        """Whether keys and values of so many tokens, which stay, leave most of the GPU's memory to training."""
        if self.copy.device.type != "cuda":
            return True
        unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        trained = TRAINED * sum(one.numel() for one in self.model.parameters())
        return cache_bytes(self.copy, tokens) < SHARE * (torch.cuda.mem_get_info()[0] + unused - trained)
