"""Tasks of the Language Model Evaluation Harness, run by its own library, lm-eval (an optional package)."""

import contextlib
import hashlib
import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_curation.settings import ConfigError

CHECKOUT = Path(__file__).parent.parent
BATCH = 16
"""Sequences of one forward pass: all their logits are in memory at once."""
RESAMPLES = 1000
"""Of the examples, for the standard errors of metrics that are no means; lm-eval's own default takes minutes."""


def check_installed() -> None:
    """Raise ConfigError where lm-eval is missing."""
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError(
            "evaluate.lm_eval names tasks and the package lm-eval is missing: pip install -c constraints.txt "
            "-e '.[lm-eval]', or empty evaluate.lm_eval"
        )


def folder_of(name: str) -> Path | None:
    """The folder of task files that an entry names, below the working folder or the checkout; None for a task's name.

    Raises ConfigError for a path where there is no folder.
    """
    for base in (Path.cwd(), CHECKOUT):
        if (base / name).is_dir():
            return (base / name).resolve()
    if "/" in name:
        raise ConfigError(f"evaluate.lm_eval names {name!r}: no such folder; name one, or a task of lm-eval")
    return None


def identity_of(name: str) -> str:
    """What of an entry enters the key: a task's name, or a folder's name and a hash of all its files."""
    folder = folder_of(name)
    if folder is None:
        return name
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode() + path.read_bytes())
    return f"{folder.name}@{digest.hexdigest()[:16]}"


def lm_eval_metrics(
    model: Any, tokenizer: Any, names: Sequence[str], limit: int | None, chat: bool
) -> dict[str, dict[str, Any]]:
    """Every metric of the tasks as `lm_eval/TASK/METRIC`; n counts examples, `limit` is the most of each task.

    With `chat` the prompts go through the chat template.
    """
    import lm_eval
    from datasets import disable_progress_bars, enable_progress_bars
    from lm_eval.models import huggingface

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of models that are handed over loaded
    disable_progress_bars()
    try:
        loaded = _load(names)
    finally:
        enable_progress_bars()
    for task in loaded["tasks"].values():  # as its own command does
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=0)
    wrapper: Any = huggingface.HFLM
    lm = wrapper(pretrained=model, tokenizer=tokenizer, batch_size=BATCH)
    results: Any = lm_eval.evaluate(
        lm, loaded, limit=limit, bootstrap_iters=RESAMPLES, log_samples=False, apply_chat_template=chat
    )
    return {
        f"lm_eval/{task}/{metric}": value
        for task, row in sorted(results["results"].items())
        for metric, value in _metrics(row).items()
    }


def _load(names: Sequence[str]) -> dict[str, Any]:
    """Tasks and groups by lm-eval's managers: one for its own tasks, one for each folder."""
    from lm_eval.tasks import TaskManager

    loaded: dict[str, Any] = {"tasks": {}, "groups": {}, "group_map": {}}
    own = [name for name in names if folder_of(name) is None]
    if own:
        manager = TaskManager()
        if unknown := sorted(set(own) - set(manager.all_tasks)):
            raise ConfigError(
                f"evaluate.lm_eval names {unknown[0]!r}, which is no task of lm-eval: `lm-eval ls tasks` lists them"
            )
        _add(loaded, manager.load(own))
    for name in names:
        folder = folder_of(name)
        if folder is None:
            continue
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        if not manager.all_subtasks:
            raise ConfigError(f"evaluate.lm_eval names {name!r}: no task is defined in its YAML files")
        with contextlib.chdir(folder):  # files that a task names lie beside it
            _add(loaded, manager.load(manager.all_subtasks))
    return loaded


def _add(loaded: dict[str, Any], more: Any) -> None:
    for kind, some in loaded.items():
        if kind == "tasks" and (twice := sorted(set(some) & set(more[kind]))):
            raise ConfigError(f"evaluate.lm_eval has two tasks named {twice[0]!r}: rename one")
        some |= more[kind]


def _metrics(row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The metrics of one task from lm-eval's row: `acc,none` and `acc_stderr,none` are value and error of `acc`."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in row.items():
        name, separator, chosen = key.partition(",")
        if not separator or name.endswith("_stderr"):
            continue
        error = row.get(f"{name}_stderr,{chosen}")
        label = name if chosen == "none" else f"{name}/{chosen}"
        found[label] = {
            "value": float(value),
            "n": row.get("sample_len"),
            "standard_error": float(error) if isinstance(error, int | float) else None,
        }
    return found
