"""The whole chain from WARC files to deduplicated documents, beside FineWeb's."""

from collections import Counter
from pathlib import Path
from shutil import copyfile
from typing import Any

from benchmarks.dedup_memory import new_place
from benchmarks.measure import Row, in_turns, row, seconds
from data_curation.artifact import Artifact
from data_curation.clean import CleanConfig, CleanTask, clean
from data_curation.dedup import DedupConfig, dedup
from data_curation.documents import read_rows
from data_curation.extract import ExtractConfig, ExtractTask, extract
from data_curation.language import usual
from data_curation.place import parts_of
from data_curation.sources.listing import resolve
from data_curation.sources.shares import tasks
from data_curation.sources.source import Source

GOAL = 8.0
ENGLISH = [one for one in usual() if one.code == "en"]
STOCK_STEPS: dict[str, Any] = {"languages": ENGLISH, "normalise": False, "pii": None}
"""Settings of `clean` with which it does what FineWeb's chain does, and nothing else."""


class Ours:
    """Our stages over WARC files, so many files a task; with one, both sides can take turns file by file."""

    def __init__(self, home: Path, files: list[Path], per_task: int = 1) -> None:
        given, most = home / "in", sum(path.stat().st_size for path in files[:per_task])
        given.mkdir(parents=True, exist_ok=True)
        for path in files:
            (given / path.name).unlink(missing_ok=True)
            copyfile(path, given / path.name)
        source = Source(name="web", kind="warc", path=str(given))
        self.listed, _ = resolve(source, home / "sources")
        self.extracting = ExtractConfig(sources=[source], bytes_per_task=1 if per_task == 1 else most)
        self.cleaning = CleanConfig(**STOCK_STEPS)
        self.places = {name: new_place(home / name) for name in ("extract", "clean", "dedup")}
        self.shares = tuple(tasks([source], [self.listed], self.extracting.bytes_per_task))

    def file(self, rank: int) -> None:
        """Extract and clean one file."""
        name = f"{rank:05d}"
        with self.places["extract"].piece(name) as piece:
            ExtractTask(self.extracting, self.shares)(rank, piece)
        uri = f"{self.places['extract'].home}/documents/{name}.parquet"
        with self.places["clean"].piece(name) as piece:
            CleanTask(self.cleaning, (*[""] * rank, uri), "")(rank, piece)

    def finish(self) -> None:
        """What the stages do once all files are through, then `dedup`."""
        for name in self.places:
            self.stage(name)

    def stage(self, name: str) -> None:
        """Run one stage; the tasks of it that are done are not done again."""
        if name == "extract":
            extract(self.extracting, [self.listed], self.places[name])
        elif name == "clean":
            clean(self.cleaning, self.made("extract"), self.places[name])
        else:
            dedup(DedupConfig(), self.made("clean"), self.places[name])

    def made(self, stage: str) -> Artifact:
        """What a stage has published so far."""
        place = self.places[stage]
        return Artifact(stage, place.home, parts_of(place.pieces()), key=stage)

    def kept(self, stage: str = "dedup") -> set[str]:
        """URLs of the documents that a stage keeps."""
        return {row["url"] for uri in self.made(stage).uris("documents", ".parquet") for row in read_rows(uri)}

    def reason(self, url: str) -> str:
        """Step and reason of a drop."""
        for stage in self.places:
            for uri in self.made(stage).uris("decisions", ".parquet"):
                for one in read_rows(uri, ["url", "step", "reason"]):
                    if one["url"] == url and one["reason"]:
                        return f"{one['step']} {one['reason']}"
        return "kept"


def whole(files: list[Path], warm: Path, home: Path) -> tuple[list[Row], dict[str, Any]]:
    """CPU seconds per 1,000 pages of both chains, and which documents they keep."""
    from benchmarks import stock

    fixed: dict[str, float] = {}
    for name, side in {"ours": Ours, "stock": stock.Chain}.items():
        first = side(home / f"warm-{name}", [warm])
        fixed[name] = seconds(lambda first=first: first.file(0))
    ours, theirs = Ours(home / "ours", files), stock.Chain(home / "stock", files)
    spent = in_turns({"ours": ours.file, "stock": theirs.file}, range(len(files)))
    last = {"ours": seconds(ours.finish), "stock": seconds(theirs.dedup)}
    pages = ours.places["extract"].pieces()
    read = sum(piece.note["read"] for piece in pages)
    per = {name: (spent[name] + last[name]) * 1000 / read for name in spent}
    kept = {"ours": ours.kept(), "stock": {str(one.metadata["url"]) for one in theirs.kept()}}
    before = {"ours": ours.kept("clean"), "stock": {str(one.metadata["url"]) for one in theirs.kept("filtered")}}
    both = kept["ours"] & kept["stock"]
    reasons = Counter(ours.reason(url) for url in kept["stock"] - both)
    rows = [
        row("whole chain, per 1,000 pages", per["ours"], per["stock"], "CPU s", less=True),
        row("whole chain, times less CPU than stock", per["stock"] / per["ours"], None, "x", GOAL),
        row(
            "of it MinHash and what ends the stages",
            last["ours"] * 1000 / read,
            last["stock"] * 1000 / read,
            "CPU s",
            less=True,
        ),
        row("first file of a process (imports, tables), once", fixed["ours"], fixed["stock"], "CPU s", less=True),
    ]
    return rows, {
        "chain: pages": read,
        "chain: kept before MinHash": {name: len(urls) for name, urls in before.items()},
        "chain: kept at the end": {name: len(urls) for name, urls in kept.items()}
        | {"both": len(both), "only ours": len(kept["ours"] - both), "only stock": len(kept["stock"] - both)},
        "chain: why ours drops what only stock keeps": dict(reasons.most_common()),
        "chain: why they differ": "the rules decide alike on one text (above); extractors give different texts",
    }
