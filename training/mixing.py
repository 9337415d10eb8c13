"""Which documents a phase is made of: shares by source, more of the long ones, epochs of each."""

import math
from collections.abc import Mapping, Sequence
from typing import Self

from pydantic import Field, model_validator

from data_curation.settings import ConfigError, Settings

Pool = tuple[str, int]
"""Documents of one source with 2^b .. 2^(b+1) - 1 tokens: (source, b). Each pool has epochs of its own."""

MANY_EPOCHS = 4.0
"""Repeats beyond this teach little (Muennighoff et al. 2023, Scaling Data-Constrained Language Models)."""


class MixConfig(Settings):
    """Which documents a phase is made of; by default all, every source by its tokens."""

    sources: dict[str, float] = {}
    """Weight of each source among this phase's tokens; a source not named gets none; empty: as many as it has."""
    long_share: float | None = Field(default=None, gt=0, le=1)
    """Share of this phase's tokens from long documents (OLMo 3 takes 0.34); none: as many as there are. With it long
    and short documents have epochs of their own: one comes again when all of its source and length (by powers of two)
    have come, and not only when the whole source has. `plan` and `max_epochs` count those that come most often."""
    long_tokens: int | None = None
    """Documents of at least so many tokens are long, a power of two; none: the phase's seq_len, rounded down to one."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(not (0 <= weight < math.inf) for weight in self.sources.values()):
            raise ValueError(f"mix.sources is {self.sources}: weights are 0 or more")
        if self.sources and not sum(self.sources.values()):
            raise ValueError(f"mix.sources is {self.sources}: give one source a weight above 0")
        if self.long_tokens is not None and (self.long_tokens < 1 or self.long_tokens & (self.long_tokens - 1)):
            raise ValueError(f"mix.long_tokens is {self.long_tokens}: give a power of two")
        if self.long_tokens is not None and self.long_share is None:
            raise ValueError(f"mix.long_tokens is {self.long_tokens}, but mix.long_share is not given: give both")
        return self

    def long_class(self, seq_len: int) -> int:
        """Documents of this power of two or a higher one are long."""
        return (self.long_tokens or seq_len).bit_length() - 1


def shares(mix: MixConfig, seq_len: int, pools: Mapping[Pool, int]) -> dict[Pool, float]:
    """Share of a phase's tokens that each pool gives, in the order of `pools` (its tokens); they sum to 1.

    With `long_share` the long documents together give that share and the others the rest, if there are both. Raises
    ConfigError for a source that is not there.
    """
    known = {source for source, _ in pools}
    for source in mix.sources:
        if source not in known:
            raise ConfigError(f"mix.sources: no source {source!r} in the shards, which hold {', '.join(sorted(known))}")
    border, found = mix.long_class(seq_len), dict.fromkeys(pools, 0.0)
    used = [pool for pool in pools if not mix.sources or mix.sources.get(pool[0])]
    long, short = [pool for pool in used if pool[1] >= border], [pool for pool in used if pool[1] < border]
    parts = [(1.0, used)]
    if mix.long_share is not None and long and short:
        parts = [(mix.long_share, long), (1 - mix.long_share, short)]
    for share, part in parts:
        have: dict[str, int] = {}
        for pool in part:
            have[pool[0]] = have.get(pool[0], 0) + pools[pool]
        weights = {source: mix.sources[source] if mix.sources else float(tokens) for source, tokens in have.items()}
        whole = math.fsum(weights.values())
        for pool in part:
            found[pool] = share * weights[pool[0]] / whole * pools[pool] / have[pool[0]]
    return found


def epochs(
    read: Sequence[tuple[float, Mapping[Pool, float]]], pools: Mapping[Pool, int], *, least: bool = False
) -> dict[str, float]:
    """How often the most (or least) repeated documents of each source are read by phases of (tokens, shares)."""
    found: dict[str, float] = {}
    for pool, tokens in pools.items():
        times = math.fsum(some * share[pool] for some, share in read) / tokens
        before = found.get(pool[0], times)
        found[pool[0]] = min(before, times) if least else max(before, times)
    return found


def too_often(name: str, read: Mapping[str, float], limit: float | None) -> list[str]:
    """A warning for each source that a phase has read beyond what still teaches; ConfigError beyond `limit`."""
    found: list[str] = []
    for source, times in read.items():
        if limit is not None and times > limit:
            raise ConfigError(
                f"pretrain.max_epochs is {limit:g}, but {name} would read documents of source {source!r} "
                f"{times:.1f} times: give more documents, fewer tokens, another mix, or raise it"
            )
        if times > MANY_EPOCHS:
            found.append(
                f"{name}: documents of source {source!r} are read {times:.1f} times by its end; beyond "
                f"{MANY_EPOCHS:g} repeats teach little (Muennighoff et al. 2023): give more documents or fewer tokens"
            )
    return found
