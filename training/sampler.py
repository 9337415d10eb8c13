"""Answers of a model that trains on a GPU, sampled from a copy in bfloat16.

Under autocast every weight is converted again for each token. The copy rounds what lies between layers, too, so
samples are from a policy that differs from the trained one by bfloat16's rounding, as those of vLLM do.
"""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor


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
