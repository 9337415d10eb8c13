"""`tokenmill trace`: what a model was made of, what one of its steps read, and where a document went."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_curation.settings import ConfigError
from flows.terminal import print_table

if TYPE_CHECKING:
    from tasks.lineage import Lineage
    from tasks.store import Store

SHOWN = 12
"""Steps of a document, and files of a source, that are named one by one; --json names all."""


def trace(store: "Store", asked: argparse.Namespace) -> int:
    """Answer for a model, for one of its steps or for a document."""
    from tasks.lineage import Lineage, find_model, label

    lineage = Lineage(store)
    model = find_model(lineage, asked.what)
    if model is None and (asked.step is not None or asked.prov):
        raise ConfigError(f"trace {asked.what!r}: no folder, run, key or digest of {store.root}: see `tokenmill show`")
    if model is None:
        answer: dict[str, Any] = {"asked": asked.what, "documents": _documents(lineage, asked.what)}
        show = _print_documents
    elif asked.step is not None:
        answer, show = _step(lineage, model, asked.step, asked.phase or ""), _print_step
    else:
        answer, show = lineage.graph(model), _print_tree
    if asked.prov:
        from tasks.prov import prov

        Path(asked.prov).write_text(json.dumps(prov(lineage.graph(model or ("", "", 0))), indent=1))
    if asked.json:
        print(json.dumps(answer))
    else:
        show(answer)
        if asked.prov and model:
            print(f"lineage of {label(model)} as PROV-JSON: {asked.prov}")
    return 0


def _documents(lineage: "Lineage", name: str) -> list[dict[str, Any]]:
    from tasks.whereabouts import Names, whereabouts

    found = whereabouts(lineage, Names([name]))
    if not found:
        raise ConfigError(
            f"trace {name!r}: no folder, run, key, digest, document id or URL of {lineage.store.root}: "
            "write a URL with its https://, or correct --store"
        )
    return found


def _step(lineage: "Lineage", model: Any, step: int, phase: str) -> dict[str, Any]:
    """The documents of a step with URL and source, which the tables of documents know."""
    from tasks.reading import documents_of_step
    from tasks.whereabouts import Names, tables

    found = documents_of_step(lineage, model, step, phase)
    names, rows = Names(found["documents"]), dict[str, dict[str, Any]]()
    shards = lineage.only(lineage.phases(model)[-1], "shards")
    for read in lineage.reads(shards) if shards else []:
        for uri in tables(lineage, read.attempt, "documents") if read.attempt else []:
            rows |= {row["id"]: row for row in names.rows(uri, ("id", "url", "source"))}
    nothing = {"url": None, "source": None}  # the documents were removed: only the shards know the id
    return found | {"documents": [rows.get(name, {"id": name, **nothing}) for name in found["documents"]]}


def _print_tree(graph: dict[str, Any]) -> None:
    """The model at the top, what it was made of below it; what stands there already is only named again."""
    known = {one["id"]: one for one in [*graph["artifacts"], *graph["sources"]]}
    seen: set[str] = set()

    def show(name: str, argument: str, depth: int) -> None:
        one = known[name]
        words = f"{'  ' * depth}{argument}{': ' if argument else ''}{one['name']}"
        if name in seen:
            print(f"{words}  (above)")
            return
        seen.add(name)
        if "inputs" not in one:
            files = f"{len(one['files'])} files" if one["files"] is not None else "files not recorded"
            print(f"{words}  source {one['path']}, {files}, digest {one['digest'][:12]}")
            for file in (one["files"] or [])[:SHOWN]:
                print(f"{'  ' * depth}  {file['path']}  {file['size']:,} bytes, sha256 {file['sha256'][:12]}")
        elif one["state"] == "gone":
            print(f"{words}  {name}: removed since")
        else:
            print(
                f"{words}  {name}, digest {one['digest'][:12]}, commit {one['commit'][:12] or 'unknown'}, {one['made']}"
            )
            for read in one["inputs"]:
                show(read.get("artifact") or read["source"], read["argument"], depth + 1)

    show(graph["model"], "", 0)


def _print_step(found: dict[str, Any]) -> None:
    skipped = f", which was skipped: {found['skipped']}" if found["skipped"] else ""
    print(f"step {found['step']} of {found['phase']}, {found['step_of_run']} of the run{skipped}")
    print_table(["id", "source", "url"], [[d["id"], d["source"] or "", d["url"] or ""] for d in found["documents"]])


def _print_documents(answer: dict[str, Any]) -> None:
    for document in answer["documents"]:
        print(f"{document['id']}  {document['source']}  {document['url']}")
        rows = [
            [
                one["name"],
                one["artifact"],
                "kept" if one["kept"] else f"dropped: {one['step']} {one['reason']}",
                _why(one),
            ]
            for one in document["stages"]
        ]
        rows += [
            ["shard", one["artifact"], "held" if one["part"] == "shards" else "held out", ""]
            for one in document["shards"]
        ]
        print_table(["stage", "artifact", "what", "why"], rows)
        rows = [
            [one["name"], one["artifact"], "yes" if one["trained"] else "no", "; ".join(map(_read, one["phases"]))]
            for one in document["models"]
        ]
        print_table(["model", "artifact", "trained on it", "tokens read"], rows) if rows else print("no model read it")


def _why(stage: dict[str, Any]) -> str:
    scores = json.loads(stage["scores"]) if stage["scores"] and not stage["kept"] else {}
    return stage["passage"] or ", ".join(f"{name} {value}" for name, value in scores.items() if value)


def _read(phase: dict[str, Any]) -> str:
    if not phase["tokens"]:
        return f"{phase['phase']}: none"
    some = ", ".join(map(str, phase["steps"][:SHOWN])) + (" ..." if len(phase["steps"]) > SHOWN else "")
    return f"{phase['phase']}: {phase['tokens']:,} in steps {some}"
