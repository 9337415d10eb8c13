"""Model, optimizer and counters as safetensors and JSON: checkpoints while a phase runs, its state at the end."""

import json
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data_curation.place import Place
from data_curation.settings import InputError
from training.parallel import as_shared, whole
from training.trainers import KEPT, checkpoints

FORMAT = 1
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class StepRecord:
    """What one step measured."""

    step: int
    """Of this phase, from 0."""
    loss: float
    """Mean cross entropy of its predicted tokens, nats."""
    labels: int
    """Predicted tokens."""
    bytes: int
    """UTF-8 bytes of the predicted tokens."""
    learning_rate: float
    gradient_norm: float
    """Before clipping."""


@dataclass
class SkippedStep:
    """A step that was not taken."""

    step: int
    why: str


@dataclass
class State:
    """Counters of a phase: with the model, the optimizer and the place in the data all that a resumed run needs."""

    step: int = 0
    """Steps of this phase that are done."""
    history: list[StepRecord] = field(default_factory=list)
    """One record per step that was taken."""
    skipped: list[SkippedStep] = field(default_factory=list)
    """Steps whose data were read and whose gradient was dropped."""


def save_checkpoint(
    place: Place,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: State,
    data: dict[str, Any],
    write: bool = True,
) -> None:
    """Write the checkpoint of this step as a piece, complete or not at all, then drop all but the newest two.

    `data` is the place in the data, from Batches.state. Tensors that lie in shares need every rank here, and one of
    them to `write`.
    """
    name = f"checkpoint-{state.step:06d}"
    part = f"work/{name}"
    weights, moments = _weights(model), _moments(model, optimizer)
    if not write:
        return
    with place.piece(name) as piece, tempfile.TemporaryDirectory(dir=place.scratch) as folder:
        save_file(weights, Path(folder, "model.safetensors"))
        save_file(moments, Path(folder, "optimizer.safetensors"))
        piece.send(part, Path(folder))
        piece.send_json(part, "state.json", {**asdict(state), "data": data})
    drop_checkpoints(place, KEPT)


def load_checkpoint(
    place: Place, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[State, dict[str, Any]] | None:
    """Set model and optimizer to the newest complete checkpoint, if there is one; returns its state and `data`."""
    found = checkpoints(place)
    if not found:
        return None
    folder = place.folder(found[-1], f"work/{found[-1].name}")
    data = json.loads((folder / "state.json").read_text())
    history = [StepRecord(**record) for record in data["history"]]
    state = State(data["step"], history, [SkippedStep(**step) for step in data["skipped"]])
    weights = load_file(folder / "model.safetensors")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(as_shared(weights[name], parameter))
    _set_moments(model, optimizer, load_file(folder / "optimizer.safetensors"))
    return state, data["data"]


def drop_checkpoints(place: Place, keep: int) -> None:
    """Forget all complete checkpoints but the newest."""
    found = checkpoints(place)
    for piece in found[: len(found) - keep]:
        place.drop(piece)


def save_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, counters: dict[str, Any], folder: Path, write: bool = True
) -> None:
    """The published part `state`: optimizer.safetensors with names of parameters, and counters as state.json."""
    moments = _moments(model, optimizer)
    if not write:
        return
    folder.mkdir(parents=True, exist_ok=True)
    save_file(moments, folder / "optimizer.safetensors")
    data = {"format": FORMAT, **counters}
    (folder / "state.json").write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")


def load_state(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> dict[str, Any]:
    """Give the optimizer the state in which an earlier phase left it; returns the counters."""
    data = json.loads((folder / "state.json").read_text())
    if data.get("format") != FORMAT:
        raise InputError(f"{folder}/state.json: format {data.get('format')!r}, this release reads {FORMAT}")
    _set_moments(model, optimizer, load_file(folder / "optimizer.safetensors"))
    return data


def _weights(model: nn.Module) -> dict[str, Tensor]:
    # Parameters that are tied come once, under the name of the first.
    return {name: whole(parameter.detach()).contiguous() for name, parameter in model.named_parameters()}


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """{parameter.exp_avg, parameter.exp_avg_sq, parameter.step}: independent of the order of parameter groups."""
    moments: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        for key in (*MOMENTS, "step"):
            moments[f"{name}.{key}"] = whole(optimizer.state[parameter][key].detach()).contiguous()
    return moments


def _set_moments(model: nn.Module, optimizer: torch.optim.Optimizer, moments: dict[str, Tensor]) -> None:
    names = {parameter: name for name, parameter in model.named_parameters()}
    known = {f"{name}.{key}" for name in names.values() for key in (*MOMENTS, "step")}
    if known != set(moments):
        odd = sorted(known ^ set(moments))[0]
        raise InputError(f"optimizer.safetensors: {odd} is on one side only: it belongs to another model")
    data = optimizer.state_dict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    data["state"] = {
        number: {
            "step": moments[f"{names[parameter]}.step"],
            **{key: as_shared(moments[f"{names[parameter]}.{key}"], parameter) for key in MOMENTS},
        }
        for number, parameter in enumerate(parameters)
    }
    optimizer.load_state_dict(data)
