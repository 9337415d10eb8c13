"""Losses of a decoder on sequences of any length, packed into batches that the ranks share out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy

from training.decoder import Decoder
from training.layout import layout_of
from training.loss import CHUNK
from training.parallel import Ranks

BATCH_TOKENS = {"cpu": 2048, "cuda": 32 * 1024}


@dataclass
class Reader:
    """Reads sequences with a decoder, in batches of one shape: another one would be compiled anew."""

    decoder: Decoder
    width: int
    """Tokens of a row; no sequence may predict more."""
    ranks: Ranks
    device: torch.device
    alive: Callable[[], object]
    """Called after each batch, for whoever waits for signs of life."""

    def read(self, sequences: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """For each sequence of n tokens the n - 1 losses in nats, and whether each prediction was the likeliest."""
        rows = max(1, BATCH_TOKENS[self.device.type] // self.width)
        places, used = list[tuple[int, int]](), [0]
        for sequence in sequences:
            if used[-1] + len(sequence) - 1 > self.width:
                used.append(0)
            places.append((len(used) - 1, used[-1]))
            used[-1] += len(sequence) - 1
        height = -(-len(used) // rows) * rows
        tokens, labels, positions, documents = (np.zeros((height, self.width), dtype=np.int64) for _ in range(4))
        documents -= 1
        for number, (sequence, (row, start)) in enumerate(zip(sequences, places, strict=True)):
            at = (row, slice(start, start + len(sequence) - 1))
            tokens[at], labels[at], documents[at] = sequence[:-1], sequence[1:], number
            positions[at] = np.arange(len(sequence) - 1)
        found = torch.zeros(2, height, self.width, device=self.device)
        for number, row in enumerate(range(0, height, rows)):
            if number % self.ranks.world == self.ranks.rank:
                some = slice(row, row + rows)
                found[:, some] = self._batch(tokens[some], labels[some], positions[some], documents[some])
                self.alive()
        if self.ranks.world > 1:
            dist.all_reduce(found)
        losses, hits = found.cpu().double().numpy()
        cuts = [(row, slice(start, start + len(one) - 1)) for one, (row, start) in zip(sequences, places, strict=True)]
        return [losses[cut] for cut in cuts], [hits[cut] for cut in cuts]

    @torch.no_grad()
    def _batch(self, *fields: np.ndarray) -> torch.Tensor:
        """Losses and hits, [2, rows, width]."""
        tokens, labels, positions = (torch.from_numpy(one).to(self.device) for one in fields[:3])
        hidden = self.decoder.hidden(tokens, positions, layout_of(fields[3], self.device, self.decoder.kernel))
        weight = self.decoder.head.weight.to(hidden.dtype).T
        parts: list[torch.Tensor] = []
        for some, label in zip(hidden.split(CHUNK), labels.flatten().split(CHUNK), strict=True):
            logits = (some @ weight).float()
            parts.append(torch.stack([cross_entropy(logits, label, reduction="none"), logits.argmax(-1) == label]))
        return torch.cat(parts, 1).view(2, *labels.shape)
