"""Context parallelism: the tokens of a row lie on several ranks, which gather keys and values and keep their queries.

Each row is cut into twice as many chunks as there are ranks, and a rank has one from the front and one from the back:
under a causal mask all have the same work then (Llama 3, section 3.3.2). What is sent grows with the number of keys'
heads only, and any attention kernel will do that takes fewer queries than keys.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed import _functional_collectives as collectives


@dataclass(frozen=True)
class Context:
    """This rank among those that share each row."""

    ranks: int = 1
    rank: int = 0
    group: Any = None
    """The process group."""

    def chunks(self) -> tuple[int, int]:
        """Numbers of this rank's chunks of 2 * ranks."""
        return self.rank, 2 * self.ranks - 1 - self.rank

    def cut(self, field: np.ndarray) -> np.ndarray:
        """This rank's tokens of [rows, width]: [2 rows, width / 2 ranks], the front chunks of all rows first."""
        rows, width = field.shape
        chunks = field.reshape(rows, 2 * self.ranks, width // (2 * self.ranks))
        return chunks[:, list(self.chunks())].swapaxes(0, 1).reshape(2 * rows, -1)

    def whole(self, local: Tensor, rows: int) -> Tensor:
        """Of all ranks' tokens [tokens, heads, width] those of the whole rows, in their order."""
        gathered = collectives.all_gather_tensor_autograd(local.contiguous(), 0, self.group)
        if isinstance(gathered, collectives.AsyncCollectiveTensor):
            gathered = gathered.wait()
        front, back = gathered.view(self.ranks, 2, rows, -1, *local.shape[1:]).unbind(1)
        chunks = torch.cat([front, back.flip(0)])
        return chunks.transpose(0, 1).reshape(-1, *local.shape[1:])
