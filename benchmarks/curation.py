"""Curation beside the stock chain: every part, the whole chain, our extra steps, growth; one core, CPU seconds.

python -m benchmarks.curation --pages DIR --labelled DIR [--documents 1000] [--parts extract,rules] [--json] [--save]

Both sides get the same input in turns in one process. The WARC files are those of a source of kind `web-packages`
(docs/data.md); growth needs 16 times as many pages as --documents, and the chain one file more than they fill. The
stock side asks for faust-cchardet and python-magic, which the extra `dev` brings.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import chain, dedup, extraction, extras, growth, rules, warc_read
from benchmarks.dedup_memory import measure as memory
from benchmarks.measure import Row, finish, options, pin, row
from benchmarks.pages import files_of, pages_of, texts_of
from data_curation.language import identify

PARTS = ("warc", "extract", "language", "rules", "dedup", "chain", "extras", "growth")
NOTE = """
CPU seconds of one core, children included, both sides in turns on the same pages in one process: Debian documentation
in nine languages. The stock side is datatrove with FineWeb's steps and settings; its language model is ours, since it
would fetch its own, and its extractor may take 60 seconds for a page, since with 1 it loses pages on a busy machine.
Ratios above 1 say how much better ours is. What a step of `clean` adds is the difference of two times, and 0 where that
is below their noise. Others used the machine meanwhile: ratios are steadier than rates. Of the time of a labelled page
resiliparse alone (decode, parse, main content; no decision) takes two thirds. Its ratio to trafilatura falls where many
processes share the cores: 7.5 to 7.9 were seen where ten wait for two.
"""


def main() -> int:
    """Run the parts that are asked for; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=Path, required=True, help="folder of WARC files")
    parser.add_argument("--labelled", type=Path, help="folder of labelled pages: html/ID.html.gz, ground-truth.json")
    parser.add_argument("--documents", type=int, default=1000, help="pages that both sides get")
    parser.add_argument("--parts", default=",".join(PARTS), help="which of them, with commas between")
    options(parser)
    asked = parser.parse_args()
    chosen = asked.parts.split(",")
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"--parts: {', '.join(sorted(unknown))}: name some of {', '.join(PARTS)}")
    pin()
    _quiet()
    result: dict[str, Any] = {"rows": [], "agreement": {}}
    with tempfile.TemporaryDirectory(prefix="tokenmill-bench-") as home:
        for name in chosen:
            rows, agreement = _part(name, asked, Path(home) / name)
            result["rows"] += rows
            result["agreement"] |= agreement
    return finish("curation", "curation beside the stock chain", NOTE, result, asked)


def _part(name: str, asked: argparse.Namespace, home: Path) -> tuple[list[Row], dict[str, Any]]:
    """Rows and agreement of one part."""
    files, home = files_of(asked.pages), home
    if name == "warc":
        return warc_read.measure(files)
    pages = pages_of(files, asked.documents)
    few = _files_for(files, asked.documents)
    if name == "extract":
        rows, agreement = extraction.unlabelled(pages)
        more, said = extraction.labelled(asked.labelled) if asked.labelled else ([], {"labelled": "not run"})
        return rows + more, agreement | said
    if name == "chain":
        return chain.whole(files[:few], files[few], home)
    if name == "growth":
        return growth.measure(files, few, home), {}
    texts = texts_of(pages)
    if name == "language":
        return rules.languages(texts)
    if name == "rules":
        return rules.heuristics([one for one in texts if identify(one[1][:2000])[0] == "en"])
    if name == "extras":
        return extras.measure(texts, home), {}
    return _dedup(texts, home)


def _dedup(texts: list[tuple[str, str]], home: Path) -> tuple[list[Row], dict[str, Any]]:
    rows, agreement = dedup.signatures(texts, home)
    more, said = dedup.clusters(home / "clusters")
    used = memory(home)
    bound = row("dedup: bytes of memory per document", used["bytes per document"], None, "bytes")
    return [*rows, *more, *dedup.recall(), bound], agreement | said


def _files_for(files: list[Path], pages: int) -> int:
    """How many of the files hold so many pages."""
    found = 0
    for index, path in enumerate(files):
        found += len(pages_of([path]))
        if found >= pages:
            return index + 1
    return len(files)


def _quiet() -> None:
    from datatrove.utils.logging import logger

    logger.remove()


if __name__ == "__main__":
    raise SystemExit(main())
