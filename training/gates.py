"""What is measured after each phase of pretraining, and what of it may stop the run."""

from typing import Any

from data_curation.settings import Settings

ERRORS = 2.0
"""A gate fails only beyond so many standard errors: noise must not stop a run."""


class ProbeConfig(Settings):
    """Measures after each phase; the model does not depend on them, and phases that are cached keep theirs."""

    tokens: int = 1_000_000
    """Held-out tokens of short documents, and again of windows as long as the phase's sequences; 0 measures nothing."""
    needles: int = 40
    """Sentences to find again in contexts as long as the phase's sequences, at five depths."""
    short_rise: float | None = 0.05
    """Gate: largest rise of bits per byte on short documents against the phase before; none: no gate."""
    context_gain: float | None = 0.0
    """Gate: smallest gain, in nats per token, by context beyond the length of the phase before; none: no gate."""


def gates_of(config: ProbeConfig, metrics: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of Counts.gates for what was measured: a rise has an upper limit, a gain a lower one."""
    found: list[dict[str, Any]] = []
    for name, limit, sign in (("short_rise", config.short_rise, -1.0), ("context_gain", config.context_gain, 1.0)):
        measured = metrics.get(name)
        if limit is None or measured is None or measured["value"] is None:
            continue
        slack = ERRORS * (measured["standard_error"] or 0.0)
        passed = sign * measured["value"] + slack >= sign * limit
        row = {"gate": name, "value": measured["value"], "standard_error": measured["standard_error"]}
        found.append(row | {"against": limit, "passed": passed})
    return found
