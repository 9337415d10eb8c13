"""The index of a finished `dedup` that later crawls are checked against, and lists of what must not come in."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numpy as np
import rensa
from numpy.typing import NDArray

from data_curation.artifact import Artifact
from data_curation.dedup import DedupConfig
from data_curation.dedup_columns import metadata
from data_curation.files import filesystem
from data_curation.grams import WORDS
from data_curation.settings import ConfigError, InputError, sha256_of
from data_curation.sources.listing import uri_of
from data_curation.sources.source import Source

FORMAT = 1
INDEX = ("id", "url_key", "exact")
"""Columns of an index beside its bands: 160 bytes a document with 14 of them."""
_ID = re.compile("[0-9a-f]{32}")


def about(config: DedupConfig) -> dict[str, Any]:
    """What hashes depend on: two indexes can be compared only where all of it is equal."""
    return {
        "format": FORMAT,
        "bands": config.bands,
        "rows": config.rows,
        "ngram": config.ngram,
        "seed": config.seed,
        "word rule": WORDS,
        "hash family": int(cast(Any, rensa).RMinHash.ALGORITHM_VERSION),
    }


def index_files(config: DedupConfig, indexes: list[Artifact]) -> list[str]:
    """URIs of the files of all older indexes, in the order of `config.indexes`.

    ConfigError where one was made with other settings, InputError where a file is no index.
    """
    found: list[str] = []
    mine = about(config)
    for number, (source, listed) in enumerate(zip(config.indexes, indexes, strict=True)):
        for file in listed.part("files").files:
            uri = uri_of(source, listed, file.path)
            theirs = metadata(uri)
            if theirs is None:
                raise InputError(f"{uri}: not an index of dedup; dedup.indexes[{number}].path must name its part index")
            for name, value in mine.items():
                if theirs.get(name) != value:
                    raise ConfigError(
                        f"dedup.indexes[{number}] ({source.name}) was made with {name} {theirs.get(name)}, this run has"
                        f" {value}: take the settings that made it, or make the older index again"
                    )
            found.append(uri)
    return found


def index_name(listed: Artifact) -> str:
    """What an index is known by to those made beside it: the hash of its files' names and hashes."""
    return sha256_of([[file.path, file.sha256] for file in listed.part("files").files])[:16]


def missing_indexes(config: DedupConfig, indexes: list[Artifact]) -> list[str]:
    """A sentence for each index that a given one was checked against and that this run was not given."""
    given = {index_name(listed) for listed in indexes}
    found: list[str] = []
    for source, listed in zip(config.indexes, indexes, strict=True):
        about_it = metadata(uri_of(source, listed, listed.part("files").files[0].path)) or {}
        lost = set(about_it.get("beside", [])) - given
        if lost:
            found.append(
                f"the index {source.name} leaves out what {len(lost)} older ones hold ({', '.join(sorted(lost))}), and"
                " they are not among dedup.indexes: their documents may come in again"
            )
    return found


class Blocked(NamedTuple):
    """What must not come in: ids as rows (high, low), URLs by their keys; both sorted."""

    ids: NDArray[np.uint64]
    urls: NDArray[np.uint64]


def read_blocked(config: DedupConfig, blocked: list[Artifact]) -> Blocked:
    """The ids and URLs of all block lists; 16 and 8 bytes in memory for each."""
    from data_curation.dedup_signatures import url_key

    ids, urls = list[bytes](), set[int]()
    for source, listed in zip(config.blocked, blocked, strict=True):
        for line in _lines(source, listed):
            if _ID.fullmatch(line.lower()):
                ids.append(bytes.fromhex(line))
            elif "://" in line:
                urls.add(url_key(line))
            else:
                raise InputError(
                    f"{source.name}: {line[:80]!r} is neither an id nor a URL; write http:// before a host"
                )
    pairs = np.frombuffer(b"".join(ids), dtype=">u8").reshape(-1, 2).astype(np.uint64)
    return Blocked(np.unique(pairs, axis=0), np.asarray(sorted(urls), dtype=np.uint64))


def _lines(source: Source, listed: Artifact) -> Iterator[str]:
    """Lines of a block list without empty ones and remarks."""
    for file in listed.part("files").files:
        fs, path = filesystem(uri_of(source, listed, file.path))
        with fs.open(path, "rt", encoding="utf-8", compression="infer") as stream:
            for line in stream:
                if (line := line.strip()) and not line.startswith("#"):
                    yield line
