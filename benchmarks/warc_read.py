"""Pages per CPU second out of WARC files: ours with its exact accounting, datatrove's WarcReader, bare fastwarc."""

from pathlib import Path
from typing import Any

import xxhash

from benchmarks.measure import Row, in_turns, row
from benchmarks.pages import Page, pages_of

GOAL = 25_000.0


def measure(files: list[Path]) -> tuple[list[Row], dict[str, Any]]:
    """Rows and what differs in the pages."""
    sides = {"ours": ours, "datatrove": datatrove, "fastwarc": fastwarc}
    for side in sides.values():
        side(files[0])  # imports
    spent = in_turns(sides, files)
    found = {
        name: {(page.url, xxhash.xxh3_128_digest(page.html)) for path in files for page in side(path)}
        for name, side in sides.items()
    }
    speed = {name: len(pages) / spent[name] for name, pages in found.items()}
    rows = [
        row("WARC read", speed["ours"], speed["datatrove"], "pages/s", GOAL),
        row("WARC read beside bare fastwarc", speed["ours"], speed["fastwarc"], "pages/s"),
    ]
    same = len(found["ours"] & found["fastwarc"]) / len(found["fastwarc"])
    counts = {name: len(pages) for name, pages in found.items()}
    return rows, {
        "WARC: pages": counts,
        "WARC: share of pages with fastwarc's bytes": same,
        "WARC: work that differs": "datatrove's reader decodes pages as well (ours does that in extract); "
        "ours checks every byte and length, the others do not",
    }


def ours(path: Path) -> list[Page]:
    """Our reader."""
    return pages_of([path])


def fastwarc(path: Path) -> list[Page]:
    """The library alone: it takes a cut file for a whole one."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    with path.open("rb") as stream:
        records = ArchiveIterator(stream, record_types=WarcRecordType.response)
        return [Page(record.headers.get("WARC-Target-URI") or "", record.reader.read()) for record in records]


def datatrove(path: Path) -> list[Page]:
    """The stock reader: pages come as text."""
    from datatrove.pipeline.readers import WarcReader

    reader = WarcReader(str(path.parent), glob_pattern=path.name)
    return [Page(str(page.metadata["url"]), page.text.encode("utf-8", "replace")) for page in reader.run()]
