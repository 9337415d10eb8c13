"""Seconds that a training stands still for a checkpoint, against torch's own ways of saving the same tensors.

python -m benchmarks.checkpoint [--json] [--save] [--parameters 50e6] [--out FILE] [--results FILE]

On a machine without this project's packages `--out` writes the figures to a file, of which `--results` makes the rows.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from data_curation.place import Place, Resources
from training import optimizers
from training.checkpoint import Checkpoints
from training.parallel import Ranks
from training.state import State

SAVES, WIDTH = 4, 2048
GOAL_SECONDS, WHOLE = 2.0, 10e9
"""The goal is that of a model of 1B parameters, whose state has so many bytes at least."""
TITLE = "checkpoints"
NOTE = """A model of square float32 matrices with AdamW's state, one process, four saves to a local disk, each while the
last one is complete. The stall is the time until training may go on; of ours it is the longest after the first save,
which takes the memory. Ours hashes every byte, and checks every hash on loading; torch's ways hash nothing."""


def main() -> int:
    """Measure or read; print one row per figure; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--save", action="store_true", help="write results/NAME.json and the section of RESULTS.md")
    parser.add_argument("--parameters", type=float, default=50e6)
    parser.add_argument("--folder", help="where to write; a folder for temporary files if none is given")
    parser.add_argument("--out", type=Path, help="write the figures there and make no rows")
    parser.add_argument("--results", type=Path, help="figures that --out wrote, in place of measuring")
    asked = parser.parse_args()
    if asked.results:
        found = json.loads(asked.results.read_text())
    else:
        with tempfile.TemporaryDirectory(prefix="tokenmill-bench-", dir=asked.folder) as folder:
            found = measured(int(asked.parameters), Path(folder))
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=1) + "\n")
        print(json.dumps(found))
        return 0
    from benchmarks.measure import finish, row

    ours, other, size = found["ours"], found["torch"], f"{found['bytes'] / 2**30:.2f} GiB on {found['device']}"
    goal = GOAL_SECONDS if found["bytes"] > WHOLE else None
    rows = [
        row(f"stall, {size}, other: save", ours["stall"], other["save"], "s", goal, less=True),
        row("stall, other: async_save", ours["stall"], other["stall"], "s", less=True),
        row("stall of the first save, other: async_save", ours["first"], other["first"], "s", less=True),
        row("until it is complete, other: save", ours["complete"], other["save"], "s", less=True),
        row("loading", ours["load"], other["load"], "s", less=True),
    ]
    return finish("checkpoint", TITLE, NOTE, {"rows": rows, "agreement": found["agreement"]}, asked)


def measured(parameters: int, folder: Path) -> dict[str, Any]:
    """All figures, seconds."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    torch.manual_seed(0)
    layers = [nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(max(1, parameters // WIDTH**2))]
    model = nn.Sequential(*layers).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    optimizers.begin(model, optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    tensors: dict[str, Any] = {f"model.{key}": value.detach() for key, value in model.named_parameters()}
    tensors |= {f"optimizer.{key}": value for key, value in optimizers.state_of(model, optimizer).items()}
    before = {key: value.to("cpu", copy=True) for key, value in tensors.items()}
    figures = {
        "device": name,
        "bytes": sum(value.nbytes for value in tensors.values()),
        "torch": _of_torch(tensors, folder / "torch"),
        "ours": _of_ours(model, optimizer, tensors, folder),
    }
    same = all(torch.equal(before[key], value.cpu()) for key, value in tensors.items())
    load_average = round(os.getloadavg()[0], 1)
    return figures | {
        "agreement": {"every bit comes back": same, "torch": torch.__version__, "load average": load_average}
    }


def _of_ours(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Any], folder: Path
) -> dict[str, float]:
    place = Place(str(folder / "ours"), folder / "scratch", Resources(), "bench")
    place.scratch.mkdir()
    complete: list[float] = []
    with Checkpoints(place, Ranks(), model, optimizer) as checkpoints:
        for step in range(SAVES):
            begin = time.monotonic()
            checkpoints.save(State(step), {})
            checkpoints.wait()
            complete.append(time.monotonic() - begin)
        for tensor in tensors.values():
            tensor.zero_()
        seconds = _seconds(checkpoints.load)
        stalls = checkpoints.stalls
    return {"first": stalls[0], "stall": max(stalls[1:]), "complete": min(complete), "load": seconds}


def _of_torch(tensors: dict[str, Any], folder: Path) -> dict[str, float]:
    saves: list[float] = []
    stalls: list[float] = []
    for _ in range(2):
        shutil.rmtree(folder, ignore_errors=True)  # a disk need not hold all of them
        saves.append(_seconds(lambda: save(tensors, storage_writer=FileSystemWriter(folder))))
    seconds = _seconds(lambda: load(tensors, storage_reader=FileSystemReader(folder)))
    for _ in range(SAVES):
        shutil.rmtree(folder)
        begin = time.monotonic()
        pending: Any = async_save(tensors, storage_writer=FileSystemWriter(folder))
        stalls.append(time.monotonic() - begin)
        pending.result()
    shutil.rmtree(folder)
    return {"save": min(saves), "first": stalls[0], "stall": max(stalls[1:]), "load": seconds}


def _seconds(work: Callable[[], Any]) -> float:
    begin = time.monotonic()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic() - begin


if __name__ == "__main__":
    raise SystemExit(main())
