"""Loss of a model on held-out documents, long ones read in windows: by document and by position."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_curation.place import Place
from data_curation.settings import InputError
from data_curation.shards import Document, Shards, heldout_documents
from training import model as models

CPU_TOKENS, GPU_TOKENS = 2048, 16384  # of one forward pass
FIRST_BUCKET = 64


@dataclass
class Score:
    """What the model's predictions of one document cost."""

    id: str
    source: str
    language: str
    nats: float = 0.0
    tokens: int = 0
    bytes: int = 0

    @property
    def bits_per_byte(self) -> float:
        """Bits that the model needs per UTF-8 byte of this document."""
        return self.nats / math.log(2) / max(1, self.bytes)


@dataclass
class Bucket:
    """Predicted tokens at positions `start` to `stop` of their window."""

    start: int
    stop: int
    documents: dict[int, tuple[float, int]] = field(default_factory=dict)
    """Nats and UTF-8 bytes there of every document, by its place in the text."""

    def bits_per_byte(self) -> dict[str, Any]:
        """Bits per UTF-8 byte at these positions; n counts documents."""
        nats, sizes = zip(*self.documents.values(), strict=True)
        return ratio([value / math.log(2) for value in nats], sizes)

    def add(self, document: int, nats: float, size: int) -> None:
        """Count a window of the document."""
        before, read = self.documents.get(document, (0.0, 0))
        self.documents[document] = (before + nats, read + size)


@dataclass
class Text:
    """The whole measurement."""

    documents: list[Score] = field(default_factory=list)
    positions: list[Bucket] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Predicted tokens."""
        return sum(row.tokens for row in self.documents)

    def bits_per_byte(self, **only: str) -> dict[str, Any]:
        """Bits per UTF-8 byte of the documents whose fields have these values; n counts documents."""
        rows = [row for row in self.documents if all(getattr(row, name) == value for name, value in only.items())]
        return ratio([row.nats / math.log(2) for row in rows], [row.bytes for row in rows])

    def loss(self) -> dict[str, Any]:
        """Nats per token; n counts documents."""
        return ratio([row.nats for row in self.documents], [row.tokens for row in self.documents])


@dataclass(frozen=True)
class _Window:
    document: int
    tokens: np.ndarray


def ratio(parts: Sequence[float], wholes: Sequence[float]) -> dict[str, Any]:
    """Sum of parts over sum of wholes, with the standard error of a ratio estimate (Cochran 1977, 2.11)."""
    n, whole = len(parts), sum(wholes)
    if not whole:
        return {"value": None, "n": n, "standard_error": None}
    value = sum(parts) / whole
    spread = sum((part - value * size) ** 2 for part, size in zip(parts, wholes, strict=True))
    error = math.sqrt(spread * n / (n - 1)) / whole if n > 1 else None
    return {"value": value, "n": n, "standard_error": error}


def measure(model: Any, heldout: Path, tokenizer: Path, limit: int, seq_len: int | None, place: Place) -> Text:
    """Loss on the first `limit` tokens of the folder's documents, control tokens not counted.

    A document's first token is never predicted. A window begins with the last token of the one before, so that every
    other token is predicted exactly once.
    """
    Shards(heldout).check_tokenizer(tokenizer)
    width = seq_len or model.config.max_position_embeddings
    token_bytes = torch.from_numpy(models.bytes_of_tokens(tokenizer))
    text = Text(positions=buckets_of(width))
    windows = list(_windows(heldout_documents(heldout), width, limit, text))
    if not windows:
        raise InputError(f"{heldout}: no held-out document with two tokens: raise shard's held-out share")
    for batch in _batches(windows, max(room_of(model, place), width)):
        _score(model, batch, token_bytes, text)
    text.positions = [bucket for bucket in text.positions if bucket.documents]
    return text


def room_of(model: Any, place: Place) -> int:
    """Tokens of one forward pass on the model's device."""
    return place.resources.micro_batch_tokens or (CPU_TOKENS if model.device.type == "cpu" else GPU_TOKENS)


def _windows(documents: Iterator[Document], width: int, limit: int, text: Text) -> Iterator[_Window]:
    for document in documents:
        tokens = document.tokens[: limit + 1].astype(np.int64)
        if len(tokens) > 1:
            text.documents.append(Score(document.id, document.source, document.language))
            for start in range(0, len(tokens) - 1, width):
                yield _Window(len(text.documents) - 1, tokens[start : start + width + 1])
            limit -= len(tokens) - 1
        if limit <= 0:
            return


def _batches(windows: list[_Window], room: int) -> Iterator[list[_Window]]:
    """Windows in order, as many together as fit."""
    batch, used = list[_Window](), 0
    for window in windows:
        if batch and used + len(window.tokens) - 1 > room:
            yield batch
            batch, used = [], 0
        batch.append(window)
        used += len(window.tokens) - 1
    yield batch


@torch.inference_mode()
def _score(model: Any, batch: list[_Window], token_bytes: torch.Tensor, text: Text) -> None:
    """Add one batch of windows, laid one after the other in a single row without any padding."""
    sizes = [len(window.tokens) - 1 for window in batch]
    tokens = torch.from_numpy(np.concatenate([window.tokens[:-1] for window in batch]))
    targets = torch.from_numpy(np.concatenate([window.tokens[1:] for window in batch]))
    positions = torch.from_numpy(np.concatenate([np.arange(size) for size in sizes]))
    read = token_bytes[targets]
    labels = torch.where(read > 0, targets, models.IGNORED)
    packing = models.Packing.of(np.repeat(np.arange(len(batch)), sizes)[None], model.device)
    row = [tensor[None].to(model.device) for tensor in (tokens, labels, positions)]
    losses = models.token_losses(model, *row, packing=packing)[0].double().cpu()
    for window, nats, counted in zip(batch, losses.split(sizes), read.split(sizes), strict=True):
        score = text.documents[window.document]
        score.nats += float(nats.sum())
        score.tokens += int((counted > 0).sum())
        score.bytes += int(counted.sum())
        for bucket in text.positions:
            some = slice(bucket.start, bucket.stop)
            if size := int(counted[some].sum()):
                bucket.add(window.document, float(nats[some].sum()), size)


def buckets_of(width: int) -> list[Bucket]:
    """Positions by powers of two: 0-63, 64-127, 128-255, ..."""
    edges = [0, FIRST_BUCKET]
    while edges[-1] < width:
        edges.append(2 * edges[-1])
    return [Bucket(start, stop) for start, stop in itertools.pairwise(edges)]
