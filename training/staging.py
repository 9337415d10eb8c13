"""Host memory into which tensors are copied before they are written, kept from save to save."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from training.parallel import local

ALIGNED = 64  # bytes; more than any type of numbers needs


class Staging:
    """One block of memory for this rank's shares, pinned beside a GPU, so that copies run at the bus's full speed.

    One block, because the allocator of pinned memory rounds every tensor up to a power of two.
    """

    def __init__(self) -> None:
        self._block: Tensor | None = None
        self._views: dict[str, Tensor] = {}

    def copy(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies of this rank's shares, valid until the next call."""
        shares = {name: local(tensor) for name, tensor in tensors.items()}
        if {name: (share.dtype, share.shape) for name, share in shares.items()} != {
            name: (view.dtype, view.shape) for name, view in self._views.items()
        }:
            self._allocate(shares)
        for name, share in shares.items():
            self._views[name].copy_(share, non_blocking=True)
        if any(share.is_cuda for share in shares.values()):
            torch.cuda.current_stream().synchronize()
        return self._views

    def close(self) -> None:
        """Give the memory back."""
        if self._block is not None and self._block.is_pinned():
            runtime: Any = torch.cuda.cudart()
            torch.cuda.check_error(int(runtime.cudaHostUnregister(self._block.data_ptr())))
        self._block, self._views = None, {}

    def _allocate(self, shares: Mapping[str, Tensor]) -> None:
        self.close()
        ends, end = {}, 0
        for name, share in shares.items():
            end += -(-share.nbytes // ALIGNED) * ALIGNED
            ends[name] = end
        self._block = block = torch.empty(max(1, end), dtype=torch.uint8)
        if any(share.is_cuda for share in shares.values()):
            runtime: Any = torch.cuda.cudart()
            torch.cuda.check_error(int(runtime.cudaHostRegister(block.data_ptr(), block.nbytes, 0)))
        for name, share in shares.items():
            begin = ends[name] - -(-share.nbytes // ALIGNED) * ALIGNED
            self._views[name] = block[begin : begin + share.nbytes].view(share.dtype).view(share.shape)
