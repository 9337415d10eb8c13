"""`tokenmill runs`, `show`, `verify` and `prune`: what a store holds, whether it is whole, and what may go."""

import argparse
import json

from data_curation.files import is_local, local_path
from data_curation.settings import ConfigError
from flows.ending import DONE, FAILED
from flows.terminal import megabytes, print_stages, print_table
from tasks.care import verify_store
from tasks.prune import Keep, prune_store
from tasks.run import RunConfig
from tasks.store import Store


def store_at(uri: str | None) -> Store:
    """The store that a command was given, else the default one; it must be there."""
    store = Store(uri or RunConfig().store)
    if is_local(store.root) and not local_path(store.root).exists():
        raise ConfigError(
            f"run.store: there is no store at {store.root}: `tokenmill run` makes one, or correct --store"
        )
    return store


def runs(store: Store, asked: argparse.Namespace) -> int:
    """List the runs, newest first, after marking those to be kept."""
    for kept, names in ((True, asked.keep), (False, asked.release)):
        for name in names:
            store.keep_run(name, kept)
    marked = store.kept_runs()
    entries = store.read_runs(store.runs()[: asked.last])
    if asked.json:
        print(json.dumps([entry | {"kept": entry["run"] in marked} for entry in entries]))
        return DONE
    rows = [
        [e["run"], e["preset"], e["state"], str(len(e["stages"])), "kept" * (e["run"] in marked), e["error"][:60]]
        for e in entries
    ]
    print_table(["run", "preset", "state", "stages", "kept", "error"], rows)
    return DONE


def show(store: Store, asked: argparse.Namespace) -> int:
    """One run, the newest by default."""
    names = store.runs()
    if not names and not asked.run:
        raise ConfigError(f"run.store: {store.root} has no runs: `tokenmill run demo` makes one")
    entry = store.read_run(asked.run or names[0])
    if asked.json:
        print(json.dumps(entry))
        return DONE
    print(f"run     {entry['run']}\nstate   {entry['state']} {entry['error']}\npreset  {entry['preset']}")
    print_stages(entry["stages"])
    return DONE


def verify(store: Store, asked: argparse.Namespace) -> int:
    """Whether the current artifacts are whole; exit code 1 if one is not."""
    wrong = verify_store(store, asked.deep)
    if asked.json:
        print(json.dumps({"wrong": wrong}))
    for line in [] if asked.json else wrong or ["every artifact is whole"]:
        print(line)
    return FAILED if wrong else DONE


def prune(store: Store, asked: argparse.Namespace) -> int:
    """Remove, or without --apply only name, what no kept run reaches."""
    pruned = prune_store(store, Keep(asked.keep, asked.days, not asked.drop_state), asked.apply)
    if asked.json:
        print(json.dumps({"removed" if asked.apply else "would_remove": pruned.freed, "kept": pruned.kept}))
        return DONE
    for entry in pruned.freed:
        print(f"{'removed' if asked.apply else 'would remove'} {entry['uri']} ({megabytes(entry['bytes'])})")
    total = sum(entry["bytes"] for entry in pruned.freed)
    print(
        f"{megabytes(total)} in {len(pruned.freed)} places; kept runs: {len(pruned.kept)}"
        + ("" if asked.apply else "; --apply removes them")
    )
    return DONE
