"""`tokenmill takedown`: documents, their near-duplicates and all that was made of them out of a store."""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_curation.files import copy_file, listing
from data_curation.settings import ConfigError
from data_curation.sources.source import Source
from flows.config import PipelineConfig
from flows.ending import DONE, FAILED
from flows.terminal import print_table

if TYPE_CHECKING:
    from tasks.lineage import Lineage
    from tasks.store import Store
    from tasks.takedown import Taken

SHOWN = 20
"""Documents and lines that are named one by one in a terminal."""


def takedown(config: PipelineConfig, asked: argparse.Namespace, run: Callable[[], int]) -> int:
    """Say what is affected and what would follow; with `--apply` block it and make what follows again by `run`.

    `--purge` then removes from the store what still holds the text.
    """
    from tasks.block_lists import write_list
    from tasks.care import living_runs
    from tasks.lineage import Lineage, label
    from tasks.store import Store
    from tasks.takedown import affected, look_up, models, read_names

    store = Store(config.run.store)
    lineage = Lineage(store)
    taken = look_up(lineage, read_names(_text(asked.file), asked.file))
    holding = affected(lineage, set(taken.documents))
    answer: dict[str, Any] = {
        "documents": sorted(taken.documents.values(), key=lambda one: (one["near"], one["id"])),
        "unknown": taken.unknown,
        "artifacts": [{"name": lineage.name(one), "artifact": label(one), "holds": holding[one]} for one in holding],
        "models": models(lineage, holding, set(taken.documents)),
        "runs": lineage.runs_with(set(holding)),
        "block_list": None,
        "stages": _stages(config, asked, store, taken.lines()),
    }
    code = DONE
    if asked.purge and (living := living_runs(store)):
        raise ConfigError(f"--purge: run {living[0]} goes on in {store.root}: wait for its end, or stop it")
    if asked.apply or asked.purge:
        answer["block_list"] = write_list(store, taken.lines())
    if not asked.json:
        _print(answer, asked.apply or asked.purge)
    if asked.apply:
        code = run()
    if asked.purge and code == DONE:
        answer |= _purge(config, Lineage(store), taken, asked.preset)
        if not asked.json:
            _print_purged(answer)
    if asked.json:
        print(json.dumps(answer))
    return code if code == DONE else FAILED


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"takedown {path!r}: cannot be read ({error}): name a text file of ids and URLs") from error


def _stages(
    config: PipelineConfig, asked: argparse.Namespace, store: "Store", lines: list[str]
) -> list[dict[str, Any]]:
    """What a run of the preset would do once the block list stands: planned with a copy of it elsewhere."""
    from flows.plan import Asked, plan
    from tasks.block_lists import FOLDER, SOURCE
    from tasks.plan import public

    with tempfile.TemporaryDirectory(prefix="tokenmill-") as folder:
        here = listing(store.uri(FOLDER))
        for path in here:
            copy_file(store.uri(FOLDER, path), f"{folder}/{path}", link=False)
        text = "".join(f"{line}\n" for line in lines)
        if all(Path(folder, path).read_text() != text for path in here):
            Path(folder, f"{len(here) + 1:05d}.txt").write_text(text)
        blocked = [*config.dedup.blocked, Source(name=SOURCE, kind="lines", path=folder)]
        config = config.model_copy(update={"dedup": config.dedup.model_copy(update={"blocked": blocked})})
        planned = plan(asked.preset, config, Asked(until=asked.until))
    return [public(record, config.run.usd_per_hour) for record in planned.stages if record.state != "cached"]


def _purge(config: PipelineConfig, lineage: "Lineage", taken: "Taken", preset: str) -> dict[str, Any]:
    """Remove what holds the text, and name what is left where this command does not reach."""
    from tasks.lineage import Lineage, find_model
    from tasks.purge import purge, quoting
    from tasks.takedown import affected

    ids, export = set(taken.documents), Path(config.run.export or f"out/{Path(preset).stem}")
    holding = affected(lineage, ids)
    left = [
        f"source {read.name} at {read.uri}: its own files still hold the pages; `extract` passes over them from now on"
        for one in holding
        if one[0] == "extract"
        for read in lineage.reads(one)
        if read.name in {document["source"] for document in taken.documents.values()}
    ]
    if (export / "model").is_dir() and find_model(lineage, str(export)) in holding:
        left.append(f"{export / 'model'}: a model that was made of the documents")
    found = purge(lineage, taken)
    texts = [export / "report.html", export / "report.json", Path(config.run.home) / "prefect.db"]
    quotes = quoting(taken, [str(path) for path in texts if path.is_file()])
    left += [f"{path}: quotes it; remove it, a later run writes it again" for path in quotes]
    return found | {"left": [*found["left"], *left, *_decided(Lineage(lineage.store), ids)]}


def _decided(lineage: "Lineage", ids: set[str]) -> list[str]:
    """Decisions about the documents that stay, without a text: that they were dropped, and why."""
    from tasks.lineage import label
    from tasks.whereabouts import Names, decisions

    rows = [attempt for some in decisions(lineage, Names(ids)).values() for attempt, _ in some]
    return [f"{label(one)}: {rows.count(one)} decisions, id and URL without text" for one in dict.fromkeys(rows)]


def _print(answer: dict[str, Any], applied: bool) -> None:
    rows = [
        [one["id"], "near-duplicate" if one["near"] else "named", one["source"], one["url"]]
        for one in answer["documents"]
    ]
    print_table(["document", "", "source", "url"], rows[:SHOWN])
    if len(rows) > SHOWN:
        print(f"and {len(rows) - SHOWN} more; --json names all")
    for name in answer["unknown"]:
        print(f"no document is called {name}; it is blocked all the same")
    print_table(
        ["affected", "artifact", "holds"], [[one["name"], one["artifact"], one["holds"]] for one in answer["artifacts"]]
    )
    for one in answer["models"]:
        print(f"model {one['name']} ({one['artifact']}): {'trained on it' if one['trained'] else 'only its tokenizer'}")
    hours = sum(stage.get("seconds", 0) for stage in answer["stages"]) / 3600
    names = ", ".join(f"{stage['name']} ({stage['state']})" for stage in answer["stages"])
    print(f"what follows: {names or 'nothing'}; {hours:.2f} h")
    print(f"block list: {answer['block_list']}" if applied else "nothing was changed: --apply blocks and makes again")


def _print_purged(answer: dict[str, Any]) -> None:
    for what in ("removed", "rewritten", "left"):
        for line in answer[what]:
            print(f"{what}: {line}")
