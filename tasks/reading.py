"""What pretraining has read: the documents of a step, and the steps that read a document."""

import json
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from data_curation.artifact import Artifact
from data_curation.files import is_local, read_bytes
from data_curation.settings import ConfigError, InputError
from data_curation.shards import Shards
from tasks.lineage import Attempt, Lineage, label
from training.batches import WINDOW_TOKENS, Batches
from training.mixing import MixConfig


@contextmanager
def opened_shards(lineage: Lineage, attempt: Attempt, part: str = "shards") -> Generator[Shards]:
    """The shards of an artifact, or its held-out ones; files on s3 are copied into a folder that is removed again."""
    manifest = lineage.manifest(attempt)
    if manifest is None:
        raise InputError(f"{label(attempt)}: is gone, so nobody can say which documents it held")
    home = lineage.uri(attempt)
    artifact: Artifact = manifest.artifact("shard", home)
    if is_local(home):
        yield Shards(Path(artifact.uri(part)))
        return
    with tempfile.TemporaryDirectory(prefix="tokenmill-") as copies:
        shards = Shards(artifact.uri(part), Path(copies), 1 << 34)
        yield shards
        shards.close()


@contextmanager
def opened_batches(lineage: Lineage, phase: Attempt) -> Generator[tuple[Batches, list[int]]]:
    """The batches of a phase and of those before it, and the steps of each."""
    manifest, shards = lineage.manifest(phase), lineage.only(phase, "shards")
    if manifest is None or shards is None:
        raise InputError(f"{label(phase)}: is gone, so nobody can say what it read")
    config = manifest.config
    with opened_shards(lineage, shards) as opened:
        batches = Batches(
            opened,
            seed=config["seed"],
            tokens_per_step=config["tokens_per_step"],
            phases=[(length, steps) for length, steps in config["lengths"]],
            mixes=[MixConfig.model_validate(mix) for mix in config["mixes"]],
        )
        yield batches, [steps for _, steps in batches.phases]


def documents_of_step(lineage: Lineage, model: Attempt, step: int, phase: str) -> dict[str, Any]:
    """Ids of the documents of one step; steps count from 0, in the named phase or, without one, over the whole run."""
    phases = lineage.phases(model)
    if not phases:
        raise ConfigError(f"--step {step}: {label(model)} was made without pretraining")
    names = [lineage.name(one) for one in phases]
    with opened_batches(lineage, phases[-1]) as (batches, steps):
        index, within = _place_of(step, phase, names, steps)
        ids = batches.documents(index, [within])
    manifest = lineage.manifest(phases[index])
    skipped = next((one["why"] for one in _skipped(lineage, phases[index]) if one["step"] == within), None)
    return {
        "model": label(model),
        "phase": names[index],
        "step": within,
        "step_of_run": sum(steps[:index]) + within,
        "seq_len": batches.phases[index][0],
        "skipped": skipped,
        "shards": label(shards) if (shards := lineage.only(phases[index], "shards")) else None,
        "commit": manifest.commit if manifest else None,
        "documents": ids,
    }


def read_by(lineage: Lineage, phase: Attempt, document: int) -> dict[str, Any]:
    """Tokens that one phase alone took from a document of its shards, by its number there, and in which steps.

    Steps that were skipped are left out: nothing was learnt from them.
    """
    skipped = {one["step"] for one in _skipped(lineage, phase)}
    with opened_batches(lineage, phase) as (batches, steps):
        index, size = len(steps) - 1, batches.tokens_per_step
        window = max(1, WINDOW_TOKENS // size)
        name, tokens, found = batches.shards.document(document).id, 0, list[int]()
        for start in range(0, steps[index], window):
            stop = min(start + window, steps[index])
            documents, _, sizes = batches.stream.stretch(index, start * size, stop * size)
            taken = int(sizes[documents == document].sum())
            # A window is packed as a whole, so which of its steps have the document shows only in their batches.
            inside = [step for step in range(start, stop) if name in batches.documents(index, [step])] if taken else []
            found += [step for step in inside if step not in skipped]
            tokens += taken
    return {"phase": lineage.name(phase), "artifact": label(phase), "tokens": tokens, "steps": found}


def has_read(lineage: Lineage, phase: Attempt, documents: set[int]) -> bool:
    """Whether one phase took a token of any of these documents of its shards, by their numbers there."""
    wanted = np.array(sorted(documents), np.int64)
    with opened_batches(lineage, phase) as (batches, steps):
        total = steps[-1] * batches.tokens_per_step
        for start in range(0, total, WINDOW_TOKENS):
            read, _, _ = batches.stream.stretch(len(steps) - 1, start, min(start + WINDOW_TOKENS, total))
            if np.isin(read, wanted).any():
                return True
    return False


def _place_of(step: int, phase: str, names: list[str], steps: list[int]) -> tuple[int, int]:
    """Number of the phase and step inside it."""
    if phase:
        if phase not in names:
            raise ConfigError(f"--phase {phase}: this model has gone through {', '.join(names)}: name one of them")
        index, within = names.index(phase), step
        most = steps[index]
    else:
        most, index, within = sum(steps), 0, step
        while index < len(steps) and within >= steps[index]:
            within -= steps[index]
            index += 1
    if not 0 <= step < most:
        raise ConfigError(f"--step {step}: {phase or 'all phases'} took {most} steps: give 0 to {most - 1}")
    return index, within


def _skipped(lineage: Lineage, phase: Attempt) -> list[dict[str, Any]]:
    try:
        return json.loads(read_bytes(lineage.uri(phase, "records", "skipped.json")))
    except FileNotFoundError:
        return []
