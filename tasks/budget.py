"""What the shards hold against what the phases ask for: epochs, long documents, FLOPs, warnings, a better plan."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from data_curation.settings import ConfigError
from training.mixing import MANY_EPOCHS, Pool, epochs, shares, too_often
from training.pretrain import Phase, PretrainConfig

OPTIMAL_TOKENS = 20
"""Tokens per parameter of a compute-optimal run (Hoffmann et al. 2022, Training Compute-Optimal LLMs, table 3)."""
LONG_SHARE = 0.34
"""Share of a long phase's tokens in long documents that keeps short skills and teaches long ones (OLMo 3)."""
Lengths = Mapping[str, Mapping[str, Sequence[int]]]
"""Histogram of a folder of shards by source: {"documents", "tokens"} by power of two of the length in tokens."""
Table = tuple[str, list[str], list[list[str]]]
"""Title, header, rows."""


@dataclass(frozen=True)
class PhaseBudget:
    """One phase against the data."""

    name: str
    seq_len: int
    tokens: int
    """Of whole steps."""
    flops: float
    epochs: dict[str, float] = field(default_factory=dict[str, float])
    """How often each source's most repeated documents are read by the end of this phase."""
    least: dict[str, float] = field(default_factory=dict[str, float])
    """The same of its least repeated ones: fewer where a phase prefers long documents."""
    long_tokens: int = 0
    """Unique tokens in documents of at least seq_len tokens (their power of two)."""
    long_share: float = 0.0
    """Share of this phase's tokens that lies in documents longer than the last phase's sequences."""
    warnings: list[str] = field(default_factory=list[str])


@dataclass(frozen=True)
class Budget:
    """The whole of pretraining against the data; without shards only what the phases ask for."""

    parameters: float
    """Of matrix products, the output matrix included."""
    tokens: int
    unique: int
    phases: list[PhaseBudget]
    suggestion: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """Phases as in `pretrain.phases` (seq_len, tokens, mix) that these data allow."""

    @property
    def flops(self) -> float:
        """Of all phases: 6 per parameter and token, and causal attention."""
        return sum(phase.flops for phase in self.phases)

    @property
    def warnings(self) -> list[str]:
        """Of all phases."""
        return [text for phase in self.phases for text in phase.warnings]


def budget(config: PretrainConfig, vocabulary: int, lengths: Lengths | None) -> Budget:
    """Hold the phases against the shards' lengths, as far as they are known."""
    parameters = config.model.flops_per_token(0, vocabulary) / 6
    step = config.tokens_per_step
    tokens = [phase.tokens // step * step for phase in config.phases]
    flops = [
        some * config.model.flops_per_token(phase.seq_len, vocabulary)
        for some, phase in zip(tokens, config.phases, strict=True)
    ]
    plain = [
        PhaseBudget(name, phase.seq_len, some, cost)
        for name, phase, some, cost in zip(config.names(), config.phases, tokens, flops, strict=True)
    ]
    pools = _pools(lengths or {})
    phases = [_phase(config, index, one, tokens, pools) for index, one in enumerate(plain)] if pools else plain
    if sum(tokens) < OPTIMAL_TOKENS * parameters:
        phases[-1].warnings.append(
            f"{phases[-1].name}: training ends after {sum(tokens):,} tokens, before the compute-optimal "
            f"{OPTIMAL_TOKENS * parameters:,.0f} of {parameters:,.0f} parameters ({OPTIMAL_TOKENS} tokens each, "
            "Hoffmann et al. 2022): more tokens, or a smaller model, give a lower loss for the same compute"
        )
    suggested = _suggest(config, tokens, parameters, pools) if pools else []
    return Budget(parameters, sum(tokens), sum(pools.values()), phases, suggested)


def _pools(lengths: Lengths) -> dict[Pool, int]:
    columns = {source: some["tokens"] for source, some in sorted(lengths.items())}
    return {(source, at): number for source, some in columns.items() for at, number in enumerate(some) if number}


def _phase(
    config: PretrainConfig, index: int, plain: PhaseBudget, tokens: list[int], pools: Mapping[Pool, int]
) -> PhaseBudget:
    phase, warnings = config.phases[index], list[str]()
    try:
        parts = [shares(one.mix, one.seq_len, pools) for one in config.phases[: index + 1]]
    except ConfigError as error:
        return replace(plain, warnings=[f"{plain.name}: {error}"])
    so_far = [(float(some), part) for some, part in zip(tokens, parts, strict=False)]
    read, least = epochs(so_far, pools), epochs(so_far, pools, least=True)
    try:
        warnings += too_often(plain.name, read, config.max_epochs)
    except ConfigError as error:
        warnings.append(str(error))
    before = config.phases[index - 1].seq_len if index else 0
    long_share = math.fsum(share for (_, at), share in parts[-1].items() if at >= _class(before)) if index else 1.0
    if long_share < LONG_SHARE - 0.01:
        warnings.append(
            f"{plain.name}: only {long_share:.0%} of its tokens lie in documents longer than {before:,} tokens, the "
            f"last phase's length: it would learn mostly from glued short ones; set its mix.long_share to {LONG_SHARE} "
            "(OLMo 3), give it fewer tokens, or more long documents"
        )
    long_tokens = sum(number for (_, at), number in pools.items() if at >= _class(phase.seq_len))
    return replace(plain, epochs=read, least=least, long_tokens=long_tokens, long_share=long_share, warnings=warnings)


def _class(length: int) -> int:
    """The power of two of a length in tokens."""
    return max(0, length.bit_length() - 1)


def _suggest(
    config: PretrainConfig, tokens: list[int], parameters: float, pools: Mapping[Pool, int]
) -> list[dict[str, Any]]:
    """Later phases that read their long documents once at most, and a first one that fills up to four epochs at most.

    The whole is what was asked for, or compute-optimal if that is more, as far as the data go.
    """
    step, unique = config.tokens_per_step, sum(pools.values())
    later: list[tuple[Phase, int]] = []
    for phase, asked in list(zip(config.phases, tokens, strict=True))[1:]:
        long = sum(number for (_, at), number in pools.items() if at >= _class(phase.seq_len))
        fitting = min(asked, int(long / LONG_SHARE)) // step * step
        if fitting:
            later.append((phase, fitting))
    whole = int(min(MANY_EPOCHS * unique, max(sum(tokens), OPTIMAL_TOKENS * parameters)))
    first = (whole - sum(some for _, some in later)) // step * step
    if first <= sum(some for _, some in later):
        return []
    found: list[dict[str, Any]] = [{"seq_len": config.phases[0].seq_len, "tokens": first}]
    for phase, some in later:
        natural = sum(number for (_, at), number in pools.items() if at >= _class(phase.seq_len)) / unique
        mix = {"mix": {"long_share": LONG_SHARE}} if natural < LONG_SHARE else {}
        found.append({"seq_len": phase.seq_len, "tokens": some} | mix)
    return found


def tables(plan: Budget, lengths: Lengths | None) -> list[Table]:
    """The budget for people: what there is, by source and length; what each phase asks for."""
    pools = _pools(lengths or {})
    rows = [[phase.name, f"{phase.tokens:,}", f"{phase.flops:.3g}"] for phase in plan.phases]
    header = ["phase", "tokens", "FLOPs"]
    title = (
        f"What the phases ask for: {plan.tokens / plan.parameters:.2g} tokens for each of {plan.parameters:,.0f} "
        f"parameters ({OPTIMAL_TOKENS} are compute-optimal)"
    )
    if not pools:
        return [(title, header, rows)]
    header += ["unique tokens as long", "in longer documents than before", "epochs so far"]
    for row, phase in zip(rows, plan.phases, strict=True):
        times = [_times(source, phase.least[source], most) for source, most in phase.epochs.items()]
        row += [f"{phase.long_tokens:,}", f"{phase.long_share:.0%}", ", ".join(times)]
    return [*_there(plan, lengths or {}, pools), (title, header, rows)]


def _there(plan: Budget, lengths: Lengths, pools: Mapping[Pool, int]) -> list[Table]:
    sources = list(dict.fromkeys(source for source, _ in pools))
    borders = [phase.seq_len for phase in plan.phases]
    rows = [
        [source, f"{sum(lengths[source]['documents']):,}", f"{_at_least(pools, source, 0):,}"]
        + [f"{_at_least(pools, source, border):,}" for border in borders]
        for source in sources
    ]
    header = ["source", "documents", "tokens", *(f"in documents of {border:,} or more" for border in borders)]
    # By powers of four: enough to see a shape, few enough for a terminal.
    buckets = sorted({at // 2 for _, at in pools})
    spread = [
        [source, *(f"{pools.get((source, 2 * at), 0) + pools.get((source, 2 * at + 1), 0):,}" for at in buckets)]
        for source in sources
    ]
    names = [f"{_short(4**at)} to {_short(4 ** (at + 1))}" for at in buckets]
    return [("Unique tokens", header, rows), ("Tokens by the length of their document", ["source", *names], spread)]


def _times(source: str, least: float, most: float) -> str:
    return f"{source} {most:.2f}" if most - least < 0.01 else f"{source} {least:.2f} to {most:.2f}"


def _short(length: int) -> str:
    return f"{length // 2**20}M" if length >= 2**20 else f"{length // 1024}k" if length >= 1024 else str(length)


def suggestion(plan: Budget) -> str:
    """The suggested phases as YAML, a line each; empty where nothing fits."""
    lines = [
        f"- {{seq_len: {one['seq_len']}, tokens: {one['tokens']:_}"
        + (f", mix: {{long_share: {one['mix']['long_share']}}}" if "mix" in one else "")
        + "}"
        for one in plan.suggestion
    ]
    return "\n".join(lines)


def _at_least(pools: Mapping[Pool, int], source: str, length: int) -> int:
    return sum(number for (name, at), number in pools.items() if name == source and at >= _class(length))
