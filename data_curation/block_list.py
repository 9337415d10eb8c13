"""Ids and URLs of pages that were taken down, which `extract` passes over."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from data_curation.files import join, listing, read_bytes
from data_curation.sources.source import Source
from data_curation.url_list import normal_url

_ID = re.compile("[0-9a-fA-F]{32}")


@dataclass(frozen=True)
class BlockList:
    """What must not be extracted."""

    ids: frozenset[str]
    urls: frozenset[str]
    """As `normal_url` spells them."""

    def has(self, name: str, url: str) -> bool:
        """Whether a document is on the list."""
        return name in self.ids or (bool(self.urls) and "://" in url and normal_url(url) in self.urls)


def block_list(sources: Sequence[Source]) -> BlockList:
    """Every line of plain lists; their form is checked by `dedup`, which takes the same ones."""
    lines = [
        line.strip()
        for source in sources
        for path in listing(source.path)
        for line in read_bytes(join(source.path, path)).decode().splitlines()
    ]
    ids = frozenset(line.lower() for line in lines if _ID.fullmatch(line))
    return BlockList(ids, frozenset(normal_url(line) for line in lines if "://" in line and not line.startswith("#")))
