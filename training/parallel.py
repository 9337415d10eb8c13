"""Ranks of one training: who I am, sums over all, a model in shares (FSDP2), whole tensors out of shares."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from training.context import Context

T = TypeVar("T")
WHOLE = 1 / 20
"""Share of a GPU's memory that whole layers may take between a pass and its way back."""
MINUTES = 10  # a rank that waits longer for the others ends with an error


@dataclass(frozen=True)
class Ranks:
    """This process among those that train one model."""

    rank: int = 0
    world: int = 1
    words: Any = None
    """A group of all ranks (gloo) for what is no gradient; it may be used beside a running step."""
    context: Context | None = None
    """The ranks that share this one's rows, where there are some."""

    @property
    def replicas(self) -> int:
        """Shares of a batch's rows."""
        return self.world // (self.context.ranks if self.context else 1)

    def total(self, values: list[float], device: torch.device) -> list[float]:
        """Element-wise sums over the ranks, the same bits on each."""
        if self.world == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def of_first(self, make: Callable[[], T]) -> T:
        """What the first rank makes, on all of them; an error of it, too."""
        if self.world == 1:
            return make()
        said: list[Any] = [None, None]
        if self.rank == 0:
            try:
                said[0] = make()
            except Exception as error:
                said[1] = error
        dist.broadcast_object_list(said, src=0, group=self.words)
        if said[1] is not None:
            raise said[1]
        return said[0]

    def rows(self, number: int) -> slice:
        """This rank's share of so many rows; ranks that share rows have the same."""
        size = number // self.replicas
        index = self.rank * self.replicas // self.world
        return slice(index * size, (index + 1) * size)

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.world > 1:
            dist.barrier()


def connect(device: torch.device, context_ranks: int = 1) -> Ranks:
    """Meet the other ranks, as torchrun's environment names them; without it there is one.

    Neighbours, so many as `context_ranks`, share rows.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Ranks()
    if not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(minutes=MINUTES))
    words = dist.new_group(backend="gloo", timeout=timedelta(minutes=MINUTES))
    return Ranks(dist.get_rank(), world, words, _context(world, context_ranks))


def _context(world: int, number: int) -> Context | None:
    if number == 1:
        return None
    # Every rank takes part in making every group.
    groups = [dist.new_group(range(first, first + number)) for first in range(0, world, number)]
    rank = dist.get_rank()
    return Context(number, rank % number, groups[rank // number])


def shard(decoder: Any, ranks: Ranks, device: torch.device, number: int | None = None) -> None:
    """Leave each rank its share of every parameter; layers are put together when they are needed.

    They are sent in the decoder's type of numbers; the gradients' sums are float32. Neighbours, so many as `number`,
    hold all shares together and the next so many a copy; without it the ranks of a node, whose network is fastest.
    """
    if ranks.world == 1:
        return
    low = None if decoder.dtype == torch.float32 else decoder.dtype
    # Without the cast angles of rotary positions stay float32.
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32, cast_forward_inputs=False)
    number = shares(ranks, number)
    shape, names = (ranks.world // number, number), ("copies", "shares")
    first = int(number == ranks.world)  # without copies the mesh has one axis
    mesh = init_device_mesh(device.type, shape[first:], mesh_dim_names=names[first:])
    again = not _fits(decoder, device)
    for layer in decoder.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=again)
    fully_shard(decoder, mesh=mesh, mp_policy=policy)


def shares(ranks: Ranks, number: int | None = None) -> int:
    """Ranks that hold the shares of a parameter together, if not so many as `number`."""
    return 1 if ranks.world == 1 else number or int(os.environ.get("LOCAL_WORLD_SIZE", ranks.world))


def average_copies(decoder: nn.Module, now: bool) -> None:
    """Whether the next pass averages the gradient over copies of the weights too: once a step, after its last pass."""
    if isinstance(decoder, FSDPModule):
        decoder.set_requires_all_reduce(now)


def _fits(decoder: Any, device: torch.device) -> bool:
    """Whether the layers of a pass may stay whole until its way back, which then need not be put together again."""
    if device.type != "cuda":
        return False
    size = sum(one.numel() for one in decoder.parameters()) * decoder.dtype.itemsize
    return size < WHOLE * torch.cuda.get_device_properties(device).total_memory


def whole(tensor: Tensor) -> Tensor:
    """The full tensor of one that may lie in shares; every rank must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Any) -> Tensor:
    """This rank's share of a tensor that may lie in shares, in the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def as_shared(full: Tensor, parameter: Tensor) -> Tensor:
    """A full tensor in the shares in which a parameter lies."""
    if not isinstance(parameter, DTensor):
        return full
    return distribute_tensor(full.to(parameter.device), parameter.device_mesh, parameter.placements)


def axis_of_shares(tensor: DTensor) -> int:
    """The axis of its mesh over which a tensor lies in shares; over any other it is replicated."""
    return next(axis for axis, placement in enumerate(tensor.placements) if placement.is_shard(0))


def loss_and_norm(model: nn.Module, loss: Tensor) -> Tensor:
    """[mean loss, norm of the gradient], float64, over all ranks, the same bits on each; it does not wait for a GPU.

    `loss` is this rank's.
    """
    gradients = _gradients(model)
    values = torch.stack([loss.detach().double(), nn.utils.get_total_norm([local(one) for one in gradients]).double()])
    if isinstance(some := gradients[0], DTensor):
        mesh = some.device_mesh
        # Of shares that are replicated each copy is in the sum.
        values = torch.stack([values[0], values[1].square() * mesh.size(axis_of_shares(some))]) / mesh.size()
        dist.all_reduce(values)
        values = torch.stack([values[0], values[1].sqrt()])
    return values


def clip(model: nn.Module, norm: float, largest: float) -> None:
    """Scale a gradient of this norm down to `largest`."""
    if norm > largest:  # mostly it is not, and a pass over all gradients is saved
        some = [local(one) for one in _gradients(model)]
        torch._foreach_mul_(some, largest / (norm + 1e-6))  # type: ignore[reportPrivateImportUsage]


def _gradients(model: nn.Module) -> list[Tensor]:
    return [one.grad for one in model.parameters() if one.grad is not None]


def gather(model: nn.Module) -> None:
    """Give every rank the whole model back, so that it is a plain one again."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if isinstance(parameter, DTensor):
                setattr(module, name, nn.Parameter(parameter.full_tensor().detach()))
