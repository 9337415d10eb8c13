"""Where torch.distributed.checkpoint writes and reads: files of a piece, hashed, with an index in JSON.

A checkpoint is the piece `checkpoint-STEP` with the files

    rank-00000.tensors      bytes of the shares that a rank wrote, one after the other
    index.json              {"format": 1, "tensors": {name: {"dtype", "shape", "chunks": [{"offsets", "sizes", "file",
                            "begin"}]}}}
    state.json              counters and the place in the data

torch's own files hold pickles; these hold none, and no byte is used before its file's hash was checked.
"""

import json
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from data_curation.place import Piece, PieceWriter, Place
from data_curation.settings import InputError

FORMAT = 1
BLOCK = 1 << 24  # bytes that are hashed and handed on at a time
INDEX, STATE = "index.json", "state.json"


class StagedPlanner(DefaultSavePlanner):
    """Plans by the tensors where they live, and takes their values from copies."""

    def __init__(self, copies: dict[str, Tensor]) -> None:
        super().__init__(flatten_state_dict=False)
        self._copies = copies

    def resolve_data(self, write_item: WriteItem) -> Tensor:
        """This rank's share."""
        return self._copies[write_item.index.fqn]


class PieceStorageWriter(StorageWriter):
    """Writes one checkpoint as a piece: each rank a file of its own, the first rank the index and, last, the mark."""

    def __init__(self, place: Place, name: str, rank: int, state: dict[str, Any]) -> None:
        self.place, self.name, self.rank, self.state = place, name, rank, state

    def reset(self, checkpoint_id: Any = None) -> None:
        """Nothing to forget: a writer is made for each checkpoint."""

    def set_up_storage_writer(self, is_coordinator: bool) -> None:
        """Nothing to set up."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """As planned."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """As planned."""
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """This rank's file; the results carry its record and where in it each share begins."""
        part, path = part_of(self.name), f"rank-{self.rank:05d}.tensors"
        writer = PieceWriter(self.place, Piece(self.name))
        places: list[tuple[MetadataIndex, int, int]] = []
        with writer.write(part, path) as out:
            for item in plan.items:
                begin = out.size
                for block in _bytes_of(planner.resolve_data(item)):  # pyright: ignore[reportArgumentType]
                    out.write(block)
                places.append((item.index, begin, out.size - begin))
        [file] = writer.piece.files[part]
        done: Future[list[WriteResult]] = Future()
        done.set_result([WriteResult(index, size, (file, begin)) for index, begin, size in places])
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Index, state and mark, when all ranks have written."""
        stored = {result.index: result.storage_data for some in results for result in some}
        tensors: dict[str, Any] = {}
        for name, tensor in metadata.state_dict_metadata.items():
            assert isinstance(tensor, TensorStorageMetadata)
            chunks: list[dict[str, Any]] = []
            for chunk in tensor.chunks:
                file, begin = stored[MetadataIndex(name, chunk.offsets)]
                chunks.append({"offsets": [*chunk.offsets], "sizes": [*chunk.sizes], "file": file.path, "begin": begin})
            dtype = str(tensor.properties.dtype).removeprefix("torch.")
            tensors[name] = {"dtype": dtype, "shape": [*tensor.size], "chunks": chunks}
        part = part_of(self.name)
        with self.place.piece(self.name) as piece:
            piece.piece.files[part] = sorted({file for file, _ in stored.values()}, key=lambda file: file.path)
            piece.send_json(part, INDEX, {"format": FORMAT, "tensors": tensors})
            piece.send_json(part, STATE, self.state)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        """A checkpoint is named by its piece alone."""
        return checkpoint_id is None


class PieceStorageReader(StorageReader):
    """Reads one checkpoint; a rank fetches and checks only the files that its shares lie in."""

    def __init__(self, place: Place, piece: Piece, index: dict[str, Any]) -> None:
        self.place, self.piece, self.index = place, piece, index
        self._stored = {
            MetadataIndex(name, chunk["offsets"]): (chunk["file"], chunk["begin"])
            for name, tensor in index["tensors"].items()
            for chunk in tensor["chunks"]
        }

    def reset(self, checkpoint_id: Any = None) -> None:
        """Nothing to forget: a reader is made for each checkpoint."""

    def read_metadata(self) -> Metadata:
        """The index in torch's terms."""
        return Metadata(
            {
                name: TensorStorageMetadata(
                    TensorProperties(getattr(torch, tensor["dtype"])),
                    torch.Size(tensor["shape"]),
                    [
                        ChunkStorageMetadata(torch.Size(chunk["offsets"]), torch.Size(chunk["sizes"]))
                        for chunk in tensor["chunks"]
                    ],
                )
                for name, tensor in self.index["tensors"].items()
            }
        )

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool) -> None:
        """Remember the sizes of chunks."""
        self._chunks = {
            MetadataIndex(name, chunk.offsets): (tensor.properties.dtype, chunk.sizes)
            for name, tensor in metadata.state_dict_metadata.items()
            if isinstance(tensor, TensorStorageMetadata)
            for chunk in tensor.chunks
        }

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """As planned."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """As planned."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Copy the wanted part of every chunk to where it belongs."""
        paths = {name: local_file(self.place, self.piece, name) for name in sorted(self._files(plan))}
        for item in plan.items:
            name, begin = self._stored[item.storage_index]
            dtype, sizes = self._chunks[item.storage_index]
            raw = bytearray(prod(sizes) * dtype.itemsize)
            with paths[name].open("rb") as stream:
                stream.seek(begin)
                stream.readinto(raw)
            chunk = torch.frombuffer(raw, dtype=dtype).view(sizes) if raw else torch.empty(sizes, dtype=dtype)
            for axis, (offset, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
                chunk = chunk.narrow(axis, offset, length)
            target = planner.resolve_tensor(item).detach()
            target.copy_(chunk)
            planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _files(self, plan: LoadPlan) -> set[str]:
        return {self._stored[item.storage_index][0] for item in plan.items}

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        """A checkpoint is named by its piece alone."""
        return checkpoint_id is None


def part_of(name: str) -> str:
    """The part in which a checkpoint's files lie."""
    return f"work/{name}"


def local_file(place: Place, piece: Piece, path: str) -> Path:
    """A file of a checkpoint on this machine, its hash checked. Raises InputError when it is missing or damaged."""
    part = part_of(piece.name)
    found = [file for file in piece.files.get(part, []) if file.path == path]
    try:
        if found:
            return place.folder(Piece(piece.name, {part: found}), part) / path
    except FileNotFoundError:
        pass
    raise InputError(f"{place.home}/{part}/{path}: missing")


def read_index(place: Place, piece: Piece) -> tuple[dict[str, Any], dict[str, Any]]:
    """Index and state of a checkpoint."""
    index, state = (json.loads(local_file(place, piece, name).read_text()) for name in (INDEX, STATE))
    if index["format"] != FORMAT:
        raise InputError(f"{place.home}/{piece.name}/{INDEX}: format {index['format']!r}, this release reads {FORMAT}")
    return index, state


def _bytes_of(tensor: Tensor) -> Iterator[bytes]:
    for block in tensor.detach().contiguous().view(-1).view(torch.uint8).split(BLOCK):
        yield block.numpy().tobytes()
