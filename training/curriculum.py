"""Which tasks `reinforce` trains on, and in which order."""

import json
from typing import TYPE_CHECKING, Any

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.documents import read_rows
from training import measures

if TYPE_CHECKING:
    from training.reinforce import ReinforceConfig

Row = dict[str, Any]


def task_rows(config: "ReinforceConfig", dialogues: Artifact, part: str) -> list[Row]:
    """The tasks of one part of the dialogues, of the configured families."""
    rows = [row for uri in dialogues.uris(part, ".parquet") for row in read_rows(uri) if row["task"]]
    return [row for row in rows if not config.families or json.loads(row["task"])["family"] in config.families]


def answerable(config: "ReinforceConfig", policy: Any, tokenizer: Any, rows: list[Row], counts: Counts) -> list[Row]:
    """The tasks whose prompts leave room for an answer; the others are counted."""
    fits = measures.fitting(policy, tokenizer, [row["messages"][:-1] for row in rows], config.max_new_tokens)
    left_out = [row for row, fit in zip(rows, fits, strict=True) if not fit]
    if left_out:
        size = sum(len(turn["content"].encode()) for row in left_out for turn in row["messages"])
        reason = "prompt longer than the context"
        counts.funnel.append({"step": "train", "reason": reason, "documents": len(left_out), "bytes": size})
    return [row for row, fit in zip(rows, fits, strict=True) if fit]


def teachable(
    config: "ReinforceConfig", train: list[Row], held: list[Row], before: list[float], counts: Counts
) -> list[Row]:
    """Train tasks of families that are neither solved nor out of reach at step 0; all where too few would be left."""
    accuracy = {name: sum(values) / len(values) for name, values in by_family(held, before).items()}
    kept: list[Row] = []
    dropped: dict[str, list[Row]] = {}
    for row in train:
        share = accuracy.get(json.loads(row["task"])["family"])
        if share is None or config.hardest <= share <= config.easiest:
            kept.append(row)
        else:
            reason = "family above easiest" if share > config.easiest else "family below hardest"
            dropped.setdefault(reason, []).append(row)
    if len(kept) < config.prompts_per_step:
        counts.warnings.append("no family lies between reinforce.hardest and reinforce.easiest: training on all")
        return train
    for reason, rows in sorted(dropped.items()):
        size = sum(len(turn["content"].encode()) for row in rows for turn in row["messages"])
        counts.funnel.append({"step": "teachable", "reason": reason, "documents": len(rows), "bytes": size})
    return kept


def prompt_order(tasks: int, config: "ReinforceConfig") -> list[int]:
    """Which task each prompt of the whole training is, epoch after epoch in new orders.

    TRL's sampler shuffles by a generator that a resumed training starts anew, so only its first epoch can be resumed;
    here the whole training is one epoch.
    """
    import numpy as np

    needed = config.steps * config.prompts_per_step
    epochs = [np.random.default_rng([config.seed, epoch]).permutation(tasks) for epoch in range(-(-needed // tasks))]
    return np.concatenate(epochs)[:needed].tolist()


def by_family(held: list[Row], values: list[float]) -> dict[str, list[float]]:
    """The values of each family's tasks, families by name."""
    found: dict[str, list[float]] = {}
    for row, value in zip(held, values, strict=True):
        found.setdefault(json.loads(row["task"])["family"], []).append(value)
    return dict(sorted(found.items()))
