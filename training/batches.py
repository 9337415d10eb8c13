"""The exact batch of any step: a pure function of seed, phases and step, for every world size.

Step s of a phase takes tokens s * tokens_per_step and following of the phase's stream of documents (stream.py), which
goes on where the earlier phases stopped. The stream is cut into windows of a fixed number of steps, and each window is
packed on its own (packing.py) into rows that are all full. So no token of an epoch is lost or comes twice, there is no
padding, what a window cuts off begins the next one, and any step is reached by packing one window.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from data_curation.settings import ConfigError, InputError, canonical
from data_curation.shards import Shards
from training.mixing import MixConfig
from training.packing import Numbers, Pieces, pack
from training.stream import Span, Stream, permutation

WINDOW_TOKENS = 1 << 22  # packed at a time: enough that few documents are cut, and memory stays flat
IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """Rows of a global batch, each array int64 [rows, seq_len]."""

    tokens: Numbers
    labels: Numbers
    """The next token inside the same piece of a document, -100 at its last token."""
    positions: Numbers
    """0, 1, ... inside each piece."""
    documents: Numbers
    """Number of the piece in its row; attention stays inside a piece. -1 would be padding, and there is none."""


class Batches:
    """Batches of `tokens_per_step` tokens from shards: a local folder, or Shards that may lie on s3.

    `phases` are (seq_len, steps) of all phases so far, the current one last, `mixes` what each is made of (none: of all
    documents). Raises ConfigError for lengths that do not divide the step and for unknown sources, InputError for
    shards with fewer tokens than one step.
    """

    def __init__(
        self,
        shards: Path | Shards,
        *,
        seed: int,
        tokens_per_step: int,
        phases: Sequence[tuple[int, int]],
        mixes: Sequence[MixConfig] = (),
    ) -> None:
        self.shards = Shards(shards) if isinstance(shards, Path) else shards
        self.seed, self.tokens_per_step, self.phases = seed, tokens_per_step, [(int(a), int(b)) for a, b in phases]
        self.mixes = list(mixes) or [MixConfig()] * len(self.phases)
        self.tokens = int(self.shards.lengths.sum())
        """Tokens of one epoch."""
        for number, (length, _) in enumerate(self.phases):
            if length < 1 or tokens_per_step % length:
                raise ConfigError(
                    f"pretrain.tokens_per_step ({tokens_per_step}) must be divisible by "
                    f"pretrain.phases[{number}].seq_len ({length}): change one of them"
                )
        if self.tokens < tokens_per_step:
            raise InputError(
                f"{self.shards.folder}: {self.tokens} tokens, one step takes {tokens_per_step}: "
                "give more documents, or lower pretrain.tokens_per_step"
            )
        pairs = zip(self.phases, self.mixes, strict=True)
        spans = [Span(length, steps * tokens_per_step, mix) for (length, steps), mix in pairs]
        self.stream = Stream(self.shards, seed, spans)
        self._window = lru_cache(2)(self._make_window)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._ahead: dict[tuple[int, int, int, int], Future[Batch]] = {}

    def batch(self, phase: int, step: int) -> Batch:
        """The global batch of a step; phases and steps count from 0."""
        return self.share(phase, step, 0, 1)

    def share(self, phase: int, step: int, rank: int, world: int) -> Batch:
        """The rows of one of `world` ranks: all shares in order of the ranks are the global batch.

        A thread prepares the next step's while this one is used.
        """
        rows = self.rows(phase)
        if rows % world or not 0 <= rank < world:
            raise ConfigError(
                f"pretrain.tokens_per_step: {rows} rows of {self.phases[phase][0]} tokens a step do not go "
                f"evenly to rank {rank} of {world}: change tokens_per_step or the number of devices"
            )
        asked = (phase, step, rows // world * rank, rows // world * (rank + 1))
        ready = self._ahead.pop(asked, None) or self._thread.submit(self._rows, *asked)
        batch = ready.result()
        following = (phase, step + 1, *asked[2:])
        self._ahead = {}
        if step + 1 < self.phases[phase][1]:
            self._ahead[following] = self._thread.submit(self._rows, *following)
        return batch

    def documents(self, phase: int, steps: Sequence[int]) -> list[str]:
        """Ids of the documents that steps take tokens from, sorted."""

        def found() -> list[str]:
            pieces = (self._pieces(phase, step, 0, self.rows(phase)) for step in steps)
            numbers = {number for some in pieces for number in some.documents.tolist()}
            return sorted(self.shards.document(number).id for number in numbers)

        return self._thread.submit(found).result()  # beside the thread that prepares batches nobody reads shards

    def rows(self, phase: int) -> int:
        """Rows of a global batch in a phase."""
        return self.tokens_per_step // self.phases[phase][0]

    def epochs(self, phase: int, step: int) -> float:
        """How often the documents have been gone through before this step, on average."""
        return (sum(steps for _, steps in self.phases[:phase]) + step) * self.tokens_per_step / self.tokens

    def source_epochs(self, phase: int, step: int) -> dict[str, float]:
        """How often each source's most repeated documents have been read before this step."""
        return self.stream.epochs(phase, step * self.tokens_per_step)

    def fingerprint(self, phase: int | None = None) -> str:
        """Hex sha256 of all that decides the batches up to the end of a phase (of the last one if none is named)."""
        return sha256(canonical(self._identity(len(self.phases) - 1 if phase is None else phase))).hexdigest()

    def state(self, phase: int, step: int) -> dict[str, Any]:
        """What a checkpoint keeps: `step` is the next one to take."""
        return {"step": step, "phase": phase, **self._identity(phase)}

    def resume(self, state: dict[str, Any], phase: int) -> int:
        """The next step of a saved state. Raises InputError, saying what differs, for a state of other batches."""
        for name, mine in {"phase": phase, **self._identity(phase)}.items():
            if state.get(name) != mine:
                raise InputError(
                    f"this state belongs to other batches: {name} is {state.get(name)!r}, here it is {mine!r}; "
                    "remove the checkpoint, or use the shards and settings that it was made with"
                )
        return int(state["step"])

    def _identity(self, phase: int) -> dict[str, Any]:
        return {
            "seq_len": self.phases[phase][0],
            "phases": [list(pair) for pair in self.phases[: phase + 1]],
            "mixes": [mix.identity() for mix in self.mixes[: phase + 1]],
            "tokens_per_step": self.tokens_per_step,
            "seed": self.seed,
            "shards": self.shards.digest,
        }

    def _rows(self, phase: int, step: int, first: int, last: int) -> Batch:
        length = self.phases[phase][0]
        pieces = self._pieces(phase, step, first, last)
        sizes, rows = pieces.sizes, pieces.rows
        starts = np.cumsum(sizes) - sizes
        tokens = np.empty((last - first) * length, np.int64)
        for document, skip, size, at in zip(
            *(array.tolist() for array in (pieces.documents, pieces.begins, sizes, starts)),
            strict=True,
        ):
            tokens[at : at + size] = self.shards.tokens(document, skip, skip + size)
        labels = np.roll(tokens, -1)
        labels[starts + sizes - 1] = IGNORED
        positions = np.arange(len(tokens)) - np.repeat(starts, sizes)
        number = np.arange(len(rows)) - np.searchsorted(rows, rows)
        shape = (last - first, length)
        return Batch(*(array.reshape(shape) for array in (tokens, labels, positions, np.repeat(number, sizes))))

    def _pieces(self, phase: int, step: int, first: int, last: int) -> Pieces:
        """Of which rows `first` to `last` of a step are made."""
        steps = self.phases[phase][1]
        if not 0 <= step < steps:
            raise IndexError(f"step {step} of phase {phase}, which has {steps}")
        window, within = divmod(step, self._steps_per_window)
        pieces, base = self._window(phase, window), within * self.rows(phase)
        begin, stop = np.searchsorted(pieces.rows, [base + first, base + last])
        return Pieces(*(array[begin:stop] for array in (pieces.documents, pieces.begins, pieces.sizes, pieces.rows)))

    @property
    def _steps_per_window(self) -> int:
        return max(1, WINDOW_TOKENS // self.tokens_per_step)

    def _make_window(self, phase: int, window: int) -> Pieces:
        """Pack one window; its rows come in a random order, so that a batch is a sample of the whole window."""
        length, steps = self.phases[phase]
        start, stop = window * self._steps_per_window, min((window + 1) * self._steps_per_window, steps)
        documents = self._stretch(phase, start, stop, window)
        if stop < steps and self.shards.remote:
            # What the next window needs from elsewhere is on its way while this one is used.
            more = min(stop + self._steps_per_window, steps)
            self.shards.announce(
                self.stream.stretch(phase, stop * self.tokens_per_step, more * self.tokens_per_step)[0]
            )
        pieces = pack(*documents, length)
        place = permutation((stop - start) * self.rows(phase), self.seed, phase, window, 2)
        order = np.argsort(place[pieces.rows], kind="stable")
        return Pieces(*(array[order] for array in (pieces.documents, pieces.begins, pieces.sizes, place[pieces.rows])))

    def _stretch(self, phase: int, start: int, stop: int, window: int) -> tuple[Numbers, Numbers, Numbers]:
        """The documents of a window in a random order, so that a row's pieces are of all sources and lengths."""
        arrays = self.stream.stretch(phase, start * self.tokens_per_step, stop * self.tokens_per_step)
        self.shards.announce(arrays[0])
        order = permutation(len(arrays[0]), self.seed, phase, window, 3)
        documents, begins, sizes = (array[order] for array in arrays)
        return documents, begins, sizes
