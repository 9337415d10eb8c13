"""Answers of a model that trains on a GPU, sampled from a copy in bfloat16: transformers' own or vLLM's.

Under autocast every weight is converted again for each token. A copy rounds what lies between layers, too, so samples
are from a policy that differs from the trained one by bfloat16's rounding.
"""

import importlib.util
import os
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor

from data_curation.place import Place
from data_curation.settings import ConfigError
from training.trainers import device_of

Engine = Literal["transformers", "vllm"]


def check_engine(engine: Engine, place: Place) -> None:
    """Refuse vLLM where it is not installed or where there is no GPU."""
    if engine == "vllm" and device_of(place) != "cuda":
        raise ConfigError(f"{place.name}.sampler is vllm, which samples on a GPU only: here is none; take transformers")
    if engine == "vllm" and importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            f"{place.name}.sampler is vllm, which is not installed: pip install -c constraints.txt -e '.[vllm]', "
            "or take transformers"
        )


def engine_arguments(engine: Engine, memory: float, tokens: int) -> dict[str, Any]:
    """Arguments of TRL's trainers for answers by this engine.

    vLLM runs in the trainer's own process, on its GPU. It holds `memory` (a share of the GPU's) for a copy of the
    weights and for keys and values of rows with at most so many `tokens`, prompt and answer.
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


class Sampler:
    """Stands for `generate` of a model whose weights change between calls."""

    def __init__(self, model: Any, dtype: torch.dtype = torch.bfloat16) -> None:
        self.model = model
        self.copy = deepcopy(model).eval().requires_grad_(False)
        for parameter in self.copy.parameters():
            parameter.data = parameter.data.to(dtype)  # buffers, such as the rotation's, stay float32
        self.copy.generation_config.use_cache = True  # training may have turned it off

    @torch.no_grad()
    def __call__(self, **given: Any) -> Tensor:
        """What `generate` of the model gives, with the weights that it has now."""
        for into, parameter in zip(self.copy.parameters(), self.model.parameters(), strict=True):
            into.copy_(parameter)
        return self.copy.generate(**given)
