"""Where a document went: what each curation stage decided, which shards hold it, which models have read it."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute

from data_curation.documents import parquet_file
from data_curation.files import filesystem
from data_curation.url_list import normal_url
from tasks.lineage import Attempt, Lineage, label
from tasks.reading import opened_shards, read_by

pc: Any = pyarrow.compute  # its functions are made at run time, so no type checker knows them
HOSTS = 50  # beyond so many, a look for each host costs more than comparing every URL
DECISION = ("id", "url", "source", "step", "reason", "passage", "scores")


class Names:
    """Documents by id or by URL, whatever the spelling of the URL."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = set(names)
        self.urls = {normal_url(name) for name in self.names if "://" in name}
        self.hosts = {_host(url) for url in self.urls}
        self.plain = pa.array(sorted(self.names), pa.string())

    def rows(self, uri: str, columns: Iterable[str]) -> Iterator[dict[str, Any]]:
        """The rows of a Parquet file with `id` and `url` that are meant; other columns are read of nothing else.

        In this thread alone: for two short columns more threads are no gain.
        """
        fs, path = filesystem(uri)
        with fs.open(path, "rb") as stream:
            file = parquet_file(stream)
            for group in range(file.num_row_groups):
                named = file.read_row_group(group, columns=["id", "url"], use_threads=False)
                places = [place for place, row in self._maybe(named) if self._meant(row)]
                if places:
                    table = file.read_row_group(group, columns=list(columns), use_threads=False)
                    yield from table.take(places).to_pylist()

    def _maybe(self, named: pa.Table) -> list[tuple[int, dict[str, Any]]]:
        mask = pc.or_(pc.is_in(named["id"], self.plain), pc.is_in(named["url"], self.plain))
        if len(self.hosts) > HOSTS:
            mask = pc.or_(mask, pc.match_substring(named["url"], "://"))
        else:
            for host in self.hosts:
                mask = pc.or_(mask, pc.match_substring(named["url"], host, ignore_case=True))
        places = pc.indices_nonzero(mask)
        return list(zip(places.to_pylist(), named.take(places).to_pylist(), strict=True))

    def _meant(self, row: dict[str, Any]) -> bool:
        return row["id"] in self.names or row["url"] in self.names or normal_url(row["url"] or "") in self.urls


def _host(normal: str) -> str:
    """What a spelling of this URL holds in any case: its host, unless that has a spelling in other letters."""
    host = re.split(r"[/?]", normal.partition("://")[2] or normal, maxsplit=1)[0]
    return "://" if "xn--" in host else host


def tables(lineage: Lineage, attempt: Attempt, part: str) -> list[str]:
    """URIs of the Parquet files of one part of an artifact; none where it has no such part."""
    manifest = lineage.manifest(attempt)
    if manifest is None or part not in manifest.parts or part in manifest.dropped:
        return []
    return manifest.artifact("", lineage.uri(attempt)).uris(part, ".parquet")


def decisions(lineage: Lineage, names: Names) -> dict[str, list[tuple[Attempt, dict[str, Any]]]]:
    """By the id of each document that is meant: what every artifact with decisions decided on it, oldest first."""
    found: dict[str, list[tuple[Attempt, dict[str, Any]]]] = {}
    for attempt in by_time(lineage, lineage.attempts):
        for uri in tables(lineage, attempt, "decisions"):
            for row in names.rows(uri, DECISION):
                if row["id"]:
                    found.setdefault(row["id"], []).append((attempt, row))
    return found


def by_time(lineage: Lineage, attempts: Iterable[Attempt]) -> list[Attempt]:
    """In the order of their making."""
    return sorted(attempts, key=lambda one: (m.made if (m := lineage.manifest(one)) else "", one))


def whereabouts(lineage: Lineage, names: Names) -> list[dict[str, Any]]:
    """One entry a document: `stages` with what each decided, `shards` that hold it, `models` that have it in theirs."""
    decided = decisions(lineage, names)
    held = holdings(lineage, set(decided))
    return [
        {
            "id": name,
            "url": rows[0][1]["url"],
            "source": rows[0][1]["source"],
            "stages": [_stage(lineage, attempt, row) for attempt, row in rows],
            "shards": [{"artifact": label(attempt), "part": part} for attempt, part, _ in held.get(name, [])],
            "models": list(
                _models(lineage, [(one, number) for one, part, number in held.get(name, []) if part == "shards"])
            ),
        }
        for name, rows in sorted(decided.items())
    ]


def holdings(lineage: Lineage, ids: set[str]) -> dict[str, list[tuple[Attempt, str, int]]]:
    """By id: the shards that hold the document, in which part (`shards` or `heldout`), and its number there."""
    found: dict[str, list[tuple[Attempt, str, int]]] = {}
    for attempt in by_time(lineage, (one for one in lineage.attempts if one[0] == "shard") if ids else ()):
        for part in ("shards", "heldout"):
            with opened_shards(lineage, attempt, part) as shards:
                for name, number in shards.find(ids).items():
                    found.setdefault(name, []).append((attempt, part, number))
    return found


def _stage(lineage: Lineage, attempt: Attempt, row: dict[str, Any]) -> dict[str, Any]:
    about = {"name": lineage.name(attempt), "artifact": label(attempt), "kept": not row["reason"]}
    return about | {name: row[name] for name in ("step", "reason", "passage", "scores")}


def _models(lineage: Lineage, held: list[tuple[Attempt, int]]) -> Iterator[dict[str, Any]]:
    """Every model whose pretraining had the document in its shards, phase by phase; `trained` once one has read it."""
    numbers, known = dict(held), dict[Attempt, dict[str, Any]]()
    for model in by_time(lineage, lineage.models() if held else []):
        phases = lineage.phases(model)
        shards = lineage.only(phases[-1], "shards") if phases else None
        if shards not in numbers:
            continue
        for phase in phases:
            if phase not in known:
                known[phase] = read_by(lineage, phase, numbers[shards])
        read = [known[phase] for phase in phases]
        trained = any(one["steps"] for one in read)
        yield {"name": lineage.name(model), "artifact": label(model), "trained": trained, "phases": read}
