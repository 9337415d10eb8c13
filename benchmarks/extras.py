"""What our own steps beyond FineWeb's add to `clean`, and decontamination: CPU seconds per 1,000 documents."""

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.chain import STOCK_STEPS
from benchmarks.dedup import documents
from benchmarks.dedup_memory import new_place
from benchmarks.measure import Row, in_turns, parts, row, seconds
from data_curation.artifact import Artifact, Part
from data_curation.clean import CleanConfig, CleanTask
from data_curation.decontaminate import DecontaminateConfig, decontaminate
from data_curation.quality import QualityConfig
from data_curation.quality_training import trained
from data_curation.sources.listing import resolve
from data_curation.sources.source import Source

CHUNK = 250
Texts = list[tuple[str, str]]
Run = Callable[[Artifact], None]


def measure(texts: Texts, home: Path) -> list[Row]:
    """One row for each step: what it adds to `clean` with FineWeb's steps alone."""
    numbers = count()
    shares = [documents(some, home / f"given{index}") for index, some in enumerate(parts(texts, CHUNK))]
    steps: dict[str, Run] = {
        "FineWeb's steps alone": _step(home, numbers),
        "ftfy": _step(home, numbers, normalise=True),
        "personal data": _step(home, numbers, pii={}),
        "quality model, trained here": _scored(texts, home, numbers),
        "every rule's score of every document": _step(home, numbers, decisions="full"),
    }
    for run in steps.values():
        run(shares[0])  # imports and tables
    spent = in_turns(steps, shares)
    base = spent.pop("FineWeb's steps alone")
    rows = [row("clean: FineWeb's steps alone", base * 1000 / len(texts), None, "CPU s/1,000")]
    rows += [
        row(f"clean: {name}, added", max(0.0, value - base) * 1000 / len(texts), None, "CPU s/1,000")
        for name, value in spent.items()
    ]
    return [*rows, _decontamination(texts, home)]


def _step(home: Path, numbers: "count[int]", folder: str = "", **settings: Any) -> Run:
    """`clean` with FineWeb's steps and these settings."""
    config = CleanConfig(**{**STOCK_STEPS, **settings})

    def run(given: Artifact) -> None:
        with new_place(home / f"clean{next(numbers)}").piece("00000") as piece:
            CleanTask(config, tuple(given.uris("documents", ".parquet")), folder)(0, piece)

    return run


def _scored(texts: Texts, home: Path, numbers: "count[int]") -> Run:
    """`clean` with a quality model; what its classes mean does not matter for what it costs."""
    sources = {name: _jsonl(name, texts[start : start + 400 : 2], home) for start, name in enumerate(("good", "bad"))}
    settings = QualityConfig(positive=[sources["good"]], negative=[sources["bad"]])
    listed = [[resolve(source, home / "sources")[0]] for source in sources.values()]
    place = new_place(home / "quality")
    model = trained(settings, (), listed[0], listed[1], place)
    return _step(home, numbers, str(place.folder(model, "quality")), quality=settings)


def _decontamination(texts: Texts, home: Path) -> Row:
    """The stage against the questions and answers of chatterbot-corpus."""
    import chatterbot_corpus
    import yaml

    questions: list[tuple[str, str]] = []
    for path in sorted((Path(str(chatterbot_corpus.__file__)).parent / "data" / "english").glob("*.yml")):
        talks: list[list[Any]] = yaml.safe_load(path.read_text())["conversations"]
        questions += [("", "\n".join(map(str, talk[:2]))) for talk in talks if len(talk) > 1]
    source = _jsonl("questions", questions, home)
    listed, _ = resolve(source, home / "sources")
    nothing = Artifact("dialogues", str(home), {"dev": Part(()), "test": Part(())})
    config = DecontaminateConfig(evaluations=[source])
    given = documents(texts, home / "decontaminate-given")
    spent = seconds(lambda: decontaminate(config, given, nothing, new_place(home / "decontaminate"), [listed]))
    return row("decontaminate", spent * 1000 / len(texts), None, "CPU s/1,000")


def _jsonl(name: str, texts: Texts, home: Path) -> Source:
    folder = home / "sets" / name
    folder.mkdir(parents=True)
    (folder / "records.jsonl").write_text("\n".join(json.dumps({"text": text}) for _, text in texts))
    return Source(name=name, kind="jsonl", path=str(folder))
