"""The learning rate of any step: a shape over one phase or over the whole run."""

import math
from typing import Literal

from data_curation.settings import Settings

Shape = Literal["constant", "wsd", "cosine", "linear"]


class ScheduleConfig(Settings):
    """How the learning rate moves between warm-up and the end of its span."""

    shape: Shape = "constant"
    """`constant`, `wsd` (constant, then a linear decay at the end), `cosine` or `linear` (decay from the start)."""
    span: Literal["phase", "run"] = "phase"
    """`phase`: every phase runs through the shape; `run`: one shape over all phases, whose lengths then all matter."""
    decay_share: float = 0.2
    """Share of the span's steps in which `wsd` decays (10-20% in Hu et al. 2024, MiniCPM)."""
    final_share: float = 0.1
    """Learning rate at the end of a decay, as a share of the phase's peak."""


class Span(Settings):
    """A shape and the steps it runs over: all that decides the learning rate besides the phase's peak."""

    shape: Shape
    """As in ScheduleConfig."""
    steps: int
    """Steps of the whole span."""
    first: int
    """The span's step at which the phase begins."""
    warmup_steps: int
    """Steps of linear warm-up from zero at the beginning of the span."""
    decay_share: float
    """As in ScheduleConfig."""
    final_share: float
    """As in ScheduleConfig."""

    def factor(self, step: int) -> float:
        """What the phase's peak is multiplied by at a step of the phase (from 0)."""
        step += self.first
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.final_share + (1 - self.final_share) * self._height(done)

    def _height(self, done: float) -> float:
        """From 1 at the beginning to 0 at the end of the decay; `done` is the share of the span that is over."""
        if self.shape == "linear":
            return 1 - done
        if self.shape == "cosine":
            return (1 + math.cos(math.pi * done)) / 2
        if self.shape == "wsd":
            return min(1.0, (1 - done) / self.decay_share)
        return 1.0
