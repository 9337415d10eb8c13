"""Checkpoints while a phase runs: written in the background by all ranks, complete or not at all."""

import logging
import time
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from data_curation.place import Piece, Place
from data_curation.settings import InputError
from training import optimizers
from training.checkpoint_files import PieceStorageReader, PieceStorageWriter, StagedPlanner, read_index
from training.parallel import Ranks
from training.staging import Staging
from training.state import Rewind, State
from training.trainers import KEPT, checkpoints

log = logging.getLogger("tokenmill")

HORIZON = 128
"""Steps: one checkpoint at least so old is kept too, for a return to before what went wrong unnoticed."""


class Checkpoints:
    """The checkpoints of one training. All ranks ask the same of it at the same step.

    Leaving the `with` block waits for the checkpoint that is being written.
    """

    def __init__(self, place: Place, ranks: Ranks, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.place, self.ranks, self.model, self.optimizer = place, ranks, model, optimizer
        self.stalls: list[float] = []
        """Seconds that training stood still at each save."""
        self._staging = Staging()
        # A new thread is on the first GPU, whichever is this rank's.
        cuda = any(parameter.is_cuda for parameter in model.parameters())
        begin = partial(torch.cuda.set_device, torch.cuda.current_device()) if cuda else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint", initializer=begin)
        self._pending: Future[None] | None = None
        # One process alone is what is meant here.
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True)
        self._staging.close()
        if error is None:
            self.wait()

    def save(self, state: State, data: dict[str, Any]) -> None:
        """Copy all tensors aside and write them while training goes on, once the last checkpoint is written.

        `data` is the place in the data, from Batches.state. Raises what went wrong with the last one.
        """
        begin = time.monotonic()
        self.wait()
        tensors = self._tensors()
        copies = self._staging.copy(tensors)
        self._pending = self._thread.submit(self._write, tensors, copies, state.copy(), data)
        self.stalls.append(time.monotonic() - begin)

    def wait(self) -> None:
        """Until the last checkpoint is complete. Raises what went wrong with it."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def check(self) -> None:
        """Raise what went wrong with the last checkpoint, if that is known by now."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def load(self) -> tuple[State, dict[str, Any]] | None:
        """Set model and optimizer to the newest complete checkpoint, if there is one; returns its state and `data`.

        One that is damaged is named and passed over for the one before. Raises InputError when all are damaged.
        """
        damaged: InputError | None = None
        for number in range(self.ranks.of_first(lambda: len(self.good()))):
            if damaged is not None:
                log.warning("%s; the checkpoint before it is taken", damaged)
            try:
                return self._read(number)
            except InputError as error:
                damaged = error
        if damaged is not None:
            raise damaged
        return None

    def good(self) -> list[Piece]:
        """Complete checkpoints, the newest first, without those of steps that a rewind has taken back."""
        back = self.rewinds()
        return [
            piece
            for piece in reversed(checkpoints(self.place))
            if not any(rewind.first < _step(piece) < rewind.stop for rewind in back)
        ]

    def rewinds(self) -> list[Rewind]:
        """All that this phase has made, in order."""
        found = [piece.note for piece in self.place.pieces() if piece.name.startswith("rewind-")]
        return [Rewind(**note) for note in sorted(found, key=lambda note: note["stop"])]

    def within(self, rewind: Rewind) -> Rewind:
        """The same from a step on that a checkpoint reaches back to."""
        oldest = self.ranks.of_first(lambda: min(_step(piece) for piece in self.good()))
        return replace(rewind, first=max(rewind.first, oldest))

    def rewind(self, rewind: Rewind) -> None:
        """Keep the decision, which alone makes younger checkpoints bad ones; then remove what is bad."""
        self.wait()
        if self.ranks.rank == 0:
            with self.place.piece(rewind.name) as piece:
                piece.piece.note = asdict(rewind)
            good = {piece.name for piece in self.good() if _step(piece) <= rewind.first}
            for piece in checkpoints(self.place):
                if piece.name not in good:
                    self.place.drop(piece)
        self.ranks.wait()

    def _tensors(self) -> dict[str, Tensor]:
        # Parameters that are tied come once, under the name of the first.
        tensors = {f"model.{name}": parameter.detach() for name, parameter in self.model.named_parameters()}
        state = optimizers.state_of(self.model, self.optimizer)
        return tensors | {f"optimizer.{name}": tensor for name, tensor in state.items()}

    def _write(self, tensors: dict[str, Any], copies: dict[str, Tensor], state: State, data: dict[str, Any]) -> None:
        kept = {**state.to_json(), "data": data}
        writer = PieceStorageWriter(self.place, f"checkpoint-{state.step:06d}", self.ranks.rank, kept)
        with _PlainErrors():
            save(
                tensors,
                storage_writer=writer,
                planner=StagedPlanner(copies),
                process_group=self.ranks.words,
                no_dist=self.ranks.world == 1,
            )
        if self.ranks.rank == 0:
            drop_old(self.place, state.step)

    def _read(self, number: int) -> tuple[State, dict[str, Any]]:
        def first() -> tuple[Piece, dict[str, Any], dict[str, Any]]:
            piece = self.good()[number]
            return piece, *read_index(self.place, piece)

        piece, index, kept = self.ranks.of_first(first)
        tensors: dict[str, Any] = self._tensors()
        if odd := sorted(set(tensors) ^ set(index["tensors"])):
            raise InputError(
                f"{self.place.home}: {piece.name} is of another model or optimizer: {odd[0]} is on one side only"
            )
        with _PlainErrors():
            load(
                tensors,
                storage_reader=PieceStorageReader(self.place, piece, index),
                planner=DefaultLoadPlanner(flatten_state_dict=False),
                process_group=self.ranks.words,
                no_dist=self.ranks.world == 1,
            )
        data = kept.pop("data")
        return State.from_json(kept, self.ranks.of_first(self.rewinds)), data


class _PlainErrors:
    """Errors of ranks as what they are, out of the wrapping in which torch collects them."""

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, CheckpointException):
            raise next(iter(error.failures.values()))[0] from error


def drop_old(place: Place, step: int) -> None:
    """Forget all complete checkpoints but the newest and the newest of those HORIZON steps old, or the oldest."""
    found = checkpoints(place)
    old = [piece for piece in found if _step(piece) <= step - HORIZON][-1:] or found[:1]
    for piece in found[:-KEPT]:
        if piece not in old:
            place.drop(piece)


def _step(piece: Piece) -> int:
    return int(piece.name.rsplit("-", 1)[1])
