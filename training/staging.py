"""Host memory into which tensors are copied before they are written, kept from save to save."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from training.parallel import local

ALIGNED = 64  # bytes; more than any type of numbers needs
PORTABLE = 1  # cudaHostRegisterPortable: pinned for every device

log = logging.getLogger("tokenmill")


class Staging:
    """One block of memory for this rank's shares, pinned beside a GPU, so that copies run at the bus's full speed.

    One block of its own, because the allocator of pinned memory rounds sizes up to a power of two.
    """

    def __init__(self) -> None:
        self._block: Tensor | None = None
        self._pinned = False
        self._views: dict[str, Tensor] = {}

    def copy(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies of this rank's shares, valid until the next call."""
        shares = {name: local(tensor) for name, tensor in tensors.items()}
        if _shapes(shares) != _shapes(self._views):
            self._allocate(shares)
        for name, share in shares.items():
            self._views[name].copy_(share, non_blocking=True)
        if any(share.is_cuda for share in shares.values()):
            torch.cuda.current_stream().synchronize()
        return self._views

    def close(self) -> None:
        """Give the memory back."""
        if self._block is not None and self._pinned:
            runtime: Any = torch.cuda.cudart()
            runtime.cudaHostUnregister(self._block.data_ptr())
        self._block, self._pinned, self._views = None, False, {}

    def _allocate(self, shares: Mapping[str, Tensor]) -> None:
        self.close()
        begins, end = {}, 0
        for name, share in shares.items():
            begins[name], end = end, end + -(-share.nbytes // ALIGNED) * ALIGNED
        self._block = torch.empty(max(1, end), dtype=torch.uint8)
        if any(share.is_cuda for share in shares.values()):
            runtime: Any = torch.cuda.cudart()
            code = int(runtime.cudaHostRegister(self._block.data_ptr(), self._block.nbytes, PORTABLE))
            self._pinned = code == 0
            if code:
                log.warning("checkpoints: %d bytes cannot be pinned (CUDA error %d): saves are slow", end, code)
        for name, share in shares.items():
            part = self._block[begins[name] : begins[name] + share.nbytes]
            self._views[name] = part.view(share.dtype).view(share.shape)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.dtype, torch.Size]]:
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
