"""What must go when documents are taken down: the documents, their near-duplicates, and all that was made of them."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from data_curation.dedup import DedupConfig
from data_curation.dedup_near import near_in_index, near_texts
from data_curation.documents import read_rows
from data_curation.settings import InputError
from data_curation.url_list import normal_url
from tasks.lineage import Attempt, Lineage, label
from tasks.reading import has_read, opened_shards
from tasks.whereabouts import DECISION, Names, by_time, decisions, holdings, tables

PASSAGE = "a passage"
"""Text that caused a drop, kept beside the decision."""


@dataclass(frozen=True)
class Taken:
    """Documents that are taken down."""

    names: list[str]
    """Ids and URLs as they were given."""
    documents: dict[str, dict[str, Any]]
    """Id -> {"id", "url", "source", "near"}; `near` are near-duplicates of the documents that were named."""
    texts: dict[str, set[str]] = field(repr=False)
    """Id -> its texts, extracted and cleaned, as far as the store has them."""

    @property
    def unknown(self) -> list[str]:
        """Names of which the store has no document; they are blocked all the same."""
        urls = {one["url"] for one in self.documents.values()}
        known = {*self.documents, *urls, *map(normal_url, urls)}
        return [name for name in self.names if name not in known and normal_url(name) not in known]

    def lines(self) -> list[str]:
        """The block list: every id, and every URL that is one."""
        urls = {one["url"] for one in self.documents.values()} | set(self.names)
        return [*sorted(self.documents), *sorted(url for url in urls if "://" in url)]


def read_names(text: str, path: str) -> list[str]:
    """Ids and URLs, one a line, without empty lines and remarks."""
    lines = [line.strip() for line in text.splitlines()]
    names = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not names:
        raise InputError(f"{path}: holds no id or URL: write one a line")
    return [
        name.lower() if len(name) == 32 and set(name.lower()) <= set("0123456789abcdef") else name for name in names
    ]


def look_up(lineage: Lineage, names: list[str]) -> Taken:
    """The documents that are named, and their near-duplicates in every `dedup` of the store."""
    found = {name: _about(rows[0][1], near=False) for name, rows in decisions(lineage, Names(names)).items()}
    texts = _texts(lineage, set(found))
    near: set[str] = set()
    for attempt in [one for one in lineage.attempts if one[0] == "dedup"]:
        near |= _near(lineage, attempt, set(found), sorted({text for some in texts.values() for text in some}))
    near -= set(found)
    found |= {name: _about(rows[0][1], near=True) for name, rows in decisions(lineage, Names(near)).items()}
    return Taken(names, found, texts | _texts(lineage, near))


def affected(lineage: Lineage, ids: set[str]) -> dict[Attempt, str]:
    """Every artifact that holds something of these documents, and what: oldest first."""
    holds: dict[Attempt, str] = {}
    tokens = {attempt for some in holdings(lineage, ids).values() for attempt, _, _ in some}
    for attempt in by_time(lineage, lineage.attempts):
        if attempt[0] == "shard":
            what = "tokens" if attempt in tokens else ""
        elif tables(lineage, attempt, "documents"):
            what = _of_documents(lineage, attempt, ids)
        else:
            what = "made of them" if any(_spreads(holds, read.attempt) for read in lineage.reads(attempt)) else ""
        if what:
            holds[attempt] = what
    return holds


def models(lineage: Lineage, holding: Iterable[Attempt], ids: set[str]) -> list[dict[str, Any]]:
    """The models among these artifacts: whether they were trained on one of the documents, or only on its tokenizer."""
    found: list[dict[str, Any]] = []
    known: dict[Attempt, bool] = {}
    for attempt in holding:
        manifest = lineage.manifest(attempt)
        if manifest is None or "model" not in manifest.parts:
            continue
        phases = lineage.phases(attempt)
        for phase in phases:
            shards = lineage.only(phase, "shards")
            if phase not in known and shards is not None and lineage.manifest(shards):
                with opened_shards(lineage, shards) as opened:
                    numbers = set(opened.find(ids).values())
                known[phase] = bool(numbers) and has_read(lineage, phase, numbers)
        trained = any(known.get(phase, True) for phase in phases)
        found.append({"name": lineage.name(attempt), "artifact": label(attempt), "trained": trained})
    return found


def _about(row: dict[str, Any], near: bool) -> dict[str, Any]:
    return {"id": row["id"], "url": row["url"], "source": row["source"], "near": near}


def _texts(lineage: Lineage, ids: set[str]) -> dict[str, set[str]]:
    """Every text that the store has of each document: as extracted, as cleaned, as cut."""
    found: dict[str, set[str]] = {name: set() for name in ids}
    for attempt in lineage.attempts if ids else []:
        for uri in tables(lineage, attempt, "documents"):
            for row in Names(ids).rows(uri, ("id", "text")):
                found[row["id"]].add(row["text"])
    return found


def _near(lineage: Lineage, attempt: Attempt, ids: set[str], texts: list[str]) -> set[str]:
    """Documents of one `dedup` near the texts: survivors by its index, dropped ones of their clusters by text."""
    manifest = lineage.manifest(attempt)
    index = tables(lineage, attempt, "index")
    if manifest is None or not index or not texts:
        return set()
    fields = ("ngram", "bands", "rows", "seed")
    config = DedupConfig.model_validate({name: manifest.config[name] for name in fields})
    near = set(near_in_index(config, index, texts))
    kept = _kept(lineage, attempt)
    leads = near | ids | {kept[name] for name in ids if name in kept}
    members = {name for name, lead in kept.items() if lead in leads} | leads
    before = lineage.only(attempt, "documents")
    rows = [
        row
        for uri in (tables(lineage, before, "documents") if before else [])
        for row in Names(members).rows(uri, ("id", "text"))
    ]
    return near | set(near_texts(config, {row["id"]: row["text"] for row in rows}, texts))


def _kept(lineage: Lineage, attempt: Attempt) -> dict[str, str]:
    """Id of each document that one `dedup` dropped for its text -> id of the one that stayed for it."""
    found: dict[str, str] = {}
    for uri in tables(lineage, attempt, "decisions"):
        for row in read_rows(uri, ["id", "step", "scores"]):
            if row["step"] in ("index", "exact", "minhash"):
                found[row["id"]] = json.loads(row["scores"])["kept"]
    return found


def _spreads(holds: dict[Attempt, str], attempt: Attempt | None) -> bool:
    """Whether what was made of an artifact is affected: of a mere passage in its decisions nothing was made."""
    return attempt is not None and holds.get(attempt, PASSAGE) != PASSAGE


def _of_documents(lineage: Lineage, attempt: Attempt, ids: set[str]) -> str:
    names = Names(ids)
    if any(True for uri in tables(lineage, attempt, "documents") for _ in names.rows(uri, ("id",))):
        return "documents"
    passages = (row["passage"] for uri in tables(lineage, attempt, "decisions") for row in names.rows(uri, DECISION))
    return PASSAGE if any(passages) else ""
