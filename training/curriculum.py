"""Which tasks `reinforce` trains on, and in which order."""

import json
from typing import TYPE_CHECKING, Any

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.documents import read_rows
from data_curation.settings import InputError
from training import measures

if TYPE_CHECKING:
    from training.reinforce import ReinforceConfig

Row = dict[str, Any]


def usable_tasks(
    config: "ReinforceConfig", policy: Any, tokenizer: Any, dialogues: Artifact, counts: Counts
) -> tuple[list[Row], list[Row], list[Row]]:
    """The tasks to train on, of `dev` and held out, of the configured families; without room for an answer: counted."""

    def usable(part: str, most: int | None, step: str) -> list[Row]:
        rows = [row for uri in dialogues.uris(part, ".parquet") for row in read_rows(uri) if row["task"]]
        mine = [row for row in rows if not config.families or json.loads(row["task"])["family"] in config.families]
        return measures.answerable(policy, tokenizer, mine[:most], config.max_new_tokens, counts, step)

    train = usable("train", None, "train")
    if len(train) < config.prompts_per_step:
        left_out = sum(row["documents"] for row in counts.funnel)
        raise InputError(
            f"{dialogues.name}: part train has {len(train)} tasks that reinforce can use, and {left_out} whose prompts "
            f"leave no room for reinforce.max_new_tokens; reinforce.prompts_per_step is {config.prompts_per_step}: "
            "generate more tasks in dialogues or lower it"
        )
    held = usable(config.held_out, config.held_out_tasks, "held-out")
    return train, usable("dev", config.dev_tasks, "dev"), held


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
        counts.warnings.append(
            f"families between reinforce.hardest and reinforce.easiest have {len(kept)} tasks, fewer than a step "
            "takes: training on all"
        )
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
