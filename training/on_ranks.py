"""Runs a trainer of an alignment stage here or on the ranks of this machine; the first of them writes the model."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from data_curation.counts import Counts
from data_curation.place import Piece, Place
from data_curation.settings import Settings
from training.launch import launch
from training.memory import full
from training.trainers import device_of, resume_folder


@dataclass(frozen=True)
class Work:
    """What one training takes, the same on all ranks."""

    source: Path
    """Folder of the model that is trained, with its tokenizer."""
    rows: Any
    """What it is trained on, a datasets.Dataset."""
    counts: Counts
    """What was counted while the rows were made; it goes with the model."""
    judge: Path | None = None
    """Folder of a reward model."""
    checkpoint: Path | None = None
    """Folder of the checkpoint to go on from."""


def on_ranks(train: Callable[[Any, Work, Place], None], config: Settings, work: Work, place: Place) -> Piece:
    """The piece `model` that `train` makes of the work, with `run.resources.ranks` processes, those of one node."""
    work = replace(work, checkpoint=resume_folder(place))
    ranks = max(1, place.resources.ranks // place.resources.nodes)  # fewer than nodes: a stage that is to train on one
    resources = place.resources.model_copy(update={"ranks": ranks, "nodes": 1})
    place = replace(place, resources=resources)
    if resources.ranks == 1:
        _trained(train, config, work, place)
    else:
        if device_of(place) == "cuda":
            torch.cuda.empty_cache()  # what the models took that were measured here
        launch("training.on_ranks:train_given", _plain(train, config, work, place.scratch / "rows"), place)
    piece = place.done("model")
    assert piece is not None
    return piece


def train_given(given: dict[str, Any], place: Place) -> None:
    """One rank's `train`, of what `on_ranks` wrote down."""
    from datasets import load_from_disk

    if device_of(place) == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    module = import_module(given["module"])
    config = getattr(module, given["config_class"]).model_validate(given["config"])
    judge, checkpoint = (None if given[name] is None else Path(given[name]) for name in ("judge", "checkpoint"))
    rows = load_from_disk(given["rows"])
    work = Work(Path(given["source"]), rows, Counts(**given["counts"]), judge, checkpoint)
    _trained(getattr(module, given["train"]), config, work, place)


def _trained(train: Callable[[Any, Work, Place], None], config: Settings, work: Work, place: Place) -> None:
    try:
        train(config, work, place)
    except torch.OutOfMemoryError as error:  # said here: of a rank that ends without a word a second try is made
        raise full(
            place.name, "lower run.resources.micro_batch_tokens or set run.resources.recompute", error
        ) from error


def _plain(train: Callable[..., None], config: Settings, work: Work, rows: Path) -> dict[str, Any]:
    work.rows.save_to_disk(rows)
    return {
        "module": train.__module__,
        "train": train.__name__,
        "config": config.model_dump(mode="json"),
        "config_class": type(config).__name__,
        "source": str(work.source),
        "rows": str(rows),
        "counts": vars(work.counts),
        "judge": None if work.judge is None else str(work.judge),
        "checkpoint": None if work.checkpoint is None else str(work.checkpoint),
    }
