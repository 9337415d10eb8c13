"""AdamW, or Muon for matrices; their state as tensors that go by the names of parameters."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.adamw import adamw

from data_curation.settings import InputError
from training.parallel import as_shared, axis_of_shares, local

if TYPE_CHECKING:
    from training.pretrain import Shared

ADAMW, MUON = ("exp_avg", "exp_avg_sq", "step"), ("momentum",)
EPSILON = 1e-8  # AdamW's
MOMENTUM = 0.95
NEWTON_SCHULZ = ((3.4445, -4.7750, 2.0315),) * 5
"""Coefficients of each step of the iteration (Jordan et al. 2024, Muon)."""
RMS = 0.2
"""Root mean square of an AdamW update in practice, to which Muon's is scaled (Liu et al. 2025, Muon is Scalable)."""


def build(run: "Shared", model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of one training; only matrices decay: not norms, and not embeddings, whose rows are rarely seen."""
    names = dict(model.named_parameters())
    matrices = [p for name, p in names.items() if p.ndim == 2 and "embed_tokens" not in name and "lm_head" not in name]
    chosen = {id(parameter) for parameter in matrices}
    rest = [parameter for parameter in names.values() if id(parameter) not in chosen]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": run.weight_decay, "muon": run.optimizer == "muon"},
        {"params": rest, "weight_decay": 0.0, "muon": False},
    ]
    return Optimizer(groups, run.betas)


class Optimizer(torch.optim.Optimizer):
    """AdamW by torch's fused kernel; groups with `muon` get orthogonal updates of the size of AdamW's instead.

    All is done on each rank's own shares, without DTensor's dispatch, which takes 10 ms a step. For Muon's iteration
    the ranks exchange shares, so that each has some matrices whole and none is iterated twice.
    """

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": 0.0, "betas": betas, "weight_decay": 0.0, "muon": False})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step on the gradients that are there."""
        assert closure is None
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["muon"]:
                self._step_muon(parameters, group["lr"], group["weight_decay"])
            elif parameters:
                self._step_adamw(parameters, group["lr"], group["weight_decay"], group["betas"])

    def _step_muon(self, parameters: list[nn.Parameter], rate: float, decay: float) -> None:
        updates: dict[tuple[int, ...], list[tuple[nn.Parameter, Tensor]]] = {}
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            gradient, momentum = local(parameter.grad), local(state["momentum"])
            momentum.lerp_(gradient, 1 - MOMENTUM)
            update = gradient.lerp(momentum, MOMENTUM)  # Nesterov's
            updates.setdefault(tuple(parameter.shape), []).append((parameter, update))
        for shape, some in updates.items():
            scale = RMS * math.sqrt(max(shape))
            shares = orthogonal([update for _, update in some], some[0][0])
            for (parameter, _), share in zip(some, shares, strict=True):
                local(parameter).mul_(1 - rate * decay).add_(share, alpha=-rate * scale)

    def _step_adamw(
        self, parameters: list[nn.Parameter], rate: float, decay: float, betas: tuple[float, float]
    ) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter] = {key: torch.zeros_like(parameter) for key in ADAMW[:2]}
                self.state[parameter]["step"] = torch.zeros((), device=parameter.device)
        states = [self.state[parameter] for parameter in parameters]
        exp_avg, exp_avg_sq, steps = ([local(state[key]) for state in states] for key in ADAMW)
        shares, gradients = [local(parameter) for parameter in parameters], [local(one.grad) for one in parameters]
        adamw(
            shares, gradients, exp_avg, exp_avg_sq, [], steps, fused=True, amsgrad=False, beta1=betas[0],
            beta2=betas[1], lr=rate, weight_decay=decay, eps=EPSILON, maximize=False,
        )  # fmt: skip


def orthogonal(updates: list[Tensor], parameter: Tensor) -> list[Tensor]:
    """This rank's shares of the updates after the iteration; all have the shape and placement of `parameter`.

    On a GPU in bfloat16, which is enough for the iteration, on a CPU in float32.
    """
    low = torch.bfloat16 if parameter.device.type == "cuda" else torch.float32
    stack = torch.stack(updates).to(low)
    if not isinstance(parameter, DTensor):
        return list(iterated(stack).unbind())
    # Where shares are replicated as well, each set of replicas does the whole work.
    mesh, axis = parameter.device_mesh, axis_of_shares(parameter)
    group, world, rank = mesh.get_group(axis), mesh.size(axis), mesh.get_local_rank(axis)
    # Rank r gets matrices share[r] whole: it sends its rows of all others and receives theirs of its own.
    share = [range(len(stack) * r // world, len(stack) * (r + 1) // world) for r in range(world)]
    height, width = parameter.shape
    most = -(-height // world)  # torch gives every rank this many rows, the last ones fewer
    rows = [max(0, min(most, height - r * most)) for r in range(world)]
    outward = [len(some) * rows[rank] * width for some in share]
    inward = [len(share[rank]) * number * width for number in rows]
    mine = stack.new_empty(sum(inward))
    dist.all_to_all_single(mine, stack.flatten(), inward, outward, group=group)
    parts = [part.view(len(share[rank]), -1, width) for part in mine.split(inward) if part.numel()]
    if parts:
        whole = iterated(torch.cat(parts, 1))
        mine = torch.cat([part.flatten() for part in whole.split(rows, 1)])
    back = torch.empty_like(stack)
    dist.all_to_all_single(back.view(-1), mine, outward, inward, group=group)
    return list(back.unbind())


def iterated(matrices: Tensor) -> Tensor:
    """Newton-Schulz iteration [number, rows, columns]: singular values go to about 1, vectors stay."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for a, b, c in NEWTON_SCHULZ:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def begin(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Give the optimizer the state before its first step, so that a checkpoint can be made of it or read into it."""
    keys = _keys(optimizer)
    for parameter in model.parameters():
        optimizer.state[parameter] = {
            key: torch.zeros((), device=parameter.device) if key == "step" else torch.zeros_like(parameter)
            for key in keys[parameter]
        }


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """{parameter.key: tensor}, in the shares of the parameters, independent of the order of parameter groups."""
    keys, state = _keys(optimizer), optimizer.state
    return {
        f"{name}.{key}": state[parameter][key].detach()
        for name, parameter in model.named_parameters()
        for key in keys[parameter]
    }


def set_state(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give the optimizer a state from `state_of`, of whole tensors or of shares like the parameters'."""
    keys = _keys(optimizer)
    known = {f"{name}.{key}" for name, parameter in model.named_parameters() for key in keys[parameter]}
    if known != set(tensors):
        odd = sorted(known ^ set(tensors))[0]
        raise InputError(
            f"optimizer.safetensors: {odd} is on one side only: it belongs to another model or another optimizer"
        )
    for name, parameter in model.named_parameters():
        state: dict[str, Tensor] = {}
        for key in keys[parameter]:
            tensor = tensors[f"{name}.{key}"]
            shared = tensor if tensor.ndim == 0 or isinstance(tensor, DTensor) else as_shared(tensor, parameter)
            state[key] = shared.to(parameter.device, copy=True)
        optimizer.state[parameter] = state


def _keys(optimizer: torch.optim.Optimizer) -> dict[Tensor, tuple[str, ...]]:
    return {
        parameter: MUON if group.get("muon") else ADAMW
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
