"""The pages that the benchmarks read: WARC files, the pages in them, their texts, labelled pages."""

import gzip
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_BYTES = 1 << 26


@dataclass(frozen=True)
class Page:
    """One page with its URL."""

    url: str
    html: bytes


def files_of(folder: Path) -> list[Path]:
    """The WARC files of a folder, by name."""
    found = sorted(path for path in folder.rglob("*") if path.name.endswith((".warc", ".warc.gz")))
    if not found:
        sys.exit(f"{folder}: no WARC file there; name a folder of *.warc or *.warc.gz")
    return found


def pages_of(files: list[Path], most: int | None = None) -> list[Page]:
    """The pages of WARC files, `most` at most."""
    from data_curation.records import read

    found: list[Page] = []
    for path in files:
        found += [Page(raw.url, raw.html) for raw in read(str(path), "warc", path.name, MAX_BYTES) if raw.html]
        if most is not None and len(found) >= most:
            return found[:most]
    return found


def texts_of(pages: list[Page]) -> list[tuple[str, str]]:
    """URL and our text of each page that has one."""
    from data_curation.html_text import extract_html

    return [(page.url, text) for page in pages if (text := extract_html(page.html, page.url).text)]


def labelled_pages(folder: Path) -> dict[str, tuple[Page, str]]:
    """Page and labelled body by id, in sorted order of the ids."""
    truth: dict[str, Any] = json.loads((folder / "ground-truth.json").read_text())
    return {
        name: (
            Page(truth[name].get("url") or "", gzip.decompress((folder / "html" / f"{name}.html.gz").read_bytes())),
            truth[name]["articleBody"],
        )
        for name in sorted(truth)
    }


def language_of(url: str) -> str:
    """The language that the name of a page's package tells, empty where it tells none."""
    package = url.split("//")[-1].split(".example/")[0]
    known = ("de", "fr", "it", "ja", "nl", "pt", "ru", "es")
    if package.startswith(("libreoffice-help-en", "anarchism", "postgresql-doc")) or package == "debian-faq":
        return "en"
    if package.endswith("-zh-cn"):
        return "zh"
    return package[-2:] if package[-3:-2] == "-" and package[-2:] in known else ""
