"""The part `state` of a phase, from which the next one goes on: optimizer as safetensors, counters as JSON."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data_curation.settings import InputError
from training import optimizers
from training.parallel import whole

FORMAT = 1


def save_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, counters: dict[str, Any], folder: Path, write: bool = True
) -> None:
    """optimizer.safetensors with names of parameters, and counters as state.json.

    Tensors that lie in shares need every rank here, and one of them to `write`.
    """
    moments: dict[str, Tensor] = {}
    for name, tensor in optimizers.state_of(model, optimizer).items():
        full = whole(tensor)  # one at a time: all of them would not fit beside a large model
        if write:
            moments[name] = full.contiguous().cpu()
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
    optimizers.set_state(model, optimizer, load_file(folder / "optimizer.safetensors"))
    return data
