"""How fast `extract` and `clean` are on one's own sources and what they keep: both on a few hundred records."""

import contextlib
import io
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_curation.artifact import Artifact
from data_curation.clean import CleanConfig
from data_curation.counts import Counts
from data_curation.extract import ExtractConfig
from data_curation.place import Place, Resources, parts_of
from data_curation.sources.source import Source
from tasks.rates import CURATION, Rate

RECORDS = 400  # of each source: a few seconds
WARM = 20  # of each source, first: imports and tables are not the rate of a long run


def probe_curation(config: Mapping[str, Any], listed: Sequence[Artifact]) -> dict[str, Rate]:
    """Rates by stage, from the sections of a configuration and the listings of its web sources.

    What `dedup` and `decontaminate` drop cannot be told from a sample: duplicates lie far apart.
    """
    said = io.StringIO()  # their own progress is not a plan's
    with (
        tempfile.TemporaryDirectory(prefix="tokenmill-probe-") as folder,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        _once(config, listed, WARM, Path(folder, "warm"))
        return _once(config, listed, RECORDS, Path(folder, "probe"))


def _once(config: Mapping[str, Any], listed: Sequence[Artifact], records: int, home: Path) -> dict[str, Rate]:
    from data_curation.clean import clean
    from data_curation.extract import extract

    pages = ExtractConfig.model_validate(config["extract"])
    pages = pages.model_copy(update={"sources": [_some(source, records) for source in pages.sources]})
    # The quality model is trained on data of its own, and adds little to the time.
    rules = CleanConfig.model_validate(config["clean"]).model_copy(update={"quality": None})
    found: dict[str, Rate] = {}
    places = {word: _place(home / word, word) for word in ("extract", "clean")}
    found["extract"] = _measured("extract", places["extract"], lambda place: extract(pages, list(listed), place))
    documents = Artifact("extract", places["extract"].home, parts_of(places["extract"].pieces()))
    found["clean"] = _measured("clean", places["clean"], lambda place: clean(rules, documents, place))
    return {word: rate for word, rate in found.items() if rate.kept}


def _some(source: Source, records: int) -> Source:
    """A fetched source is known by its limit, so that a share of it is taken instead."""
    if source.fetched:
        share = records / source.limit if source.limit else 0.1
        return source.model_copy(update={"fraction": min(source.fraction, share)})
    return source.model_copy(update={"limit": min(records, source.limit or records), "weight": None})


def _place(home: Path, word: str) -> Place:
    (home / "scratch").mkdir(parents=True)
    return Place(str(home / "out"), home / "scratch", Resources(workers=1, log_seconds=1e9), word)


def _measured(word: str, place: Place, stage: Callable[[Place], Counts]) -> Rate:
    begin = time.monotonic()
    counts = stage(place)
    seconds = time.monotonic() - begin
    taken, made = counts.taken.get("bytes", 0), counts.made.get("bytes", 0)
    if not taken or not made:
        return replace(CURATION[word], kept=0.0)  # nothing to learn from
    size = sum(file.size for part in parts_of(place.pieces()).values() for file in part.files)
    return Rate(taken / seconds, CURATION[word].start, made / taken, size / made)
