"""The quality model of one run: its texts chosen, the classifier trained, measured and published."""

from collections.abc import Iterable, Iterator, Sequence
from heapq import heappush, heappushpop
from typing import Any

import numpy as np
from xxhash import xxh3_64_intdigest

from data_curation.artifact import Artifact
from data_curation.documents import read_rows
from data_curation.place import Piece, Place
from data_curation.quality import QualityConfig
from data_curation.quality_model import WEIGHTS, LinearModel, metrics
from data_curation.settings import InputError
from data_curation.sources.source import Source

_HELD_OUT = 1
"""Seed of the hash that holds texts out: it must not be the one by which they are chosen."""
_FEWEST = 10
"""Texts of each class that a classifier is trained on, or measured by, at least."""


def trained(
    config: QualityConfig,
    files: Sequence[str],
    positive: Sequence[Artifact],
    negative: Sequence[Artifact],
    place: Place,
) -> Piece:
    """The piece `quality` with the part of that name; which texts it takes depends on neither order nor workers."""
    done = place.done("quality") or _train(config, files, positive, negative, place)
    place.plot("quality", "Scores of texts held out from training", "score", "share of texts", done.note["spread"])
    return done


def _train(
    config: QualityConfig,
    files: Sequence[str],
    positive: Sequence[Artifact],
    negative: Sequence[Artifact],
    place: Place,
) -> Piece:
    good = _chosen(config, _texts(config.positive, positive, files, config.positive_documents))
    bad = _chosen(config, _texts(config.negative, negative, files, config.negative_documents))
    both = good.keys() & bad.keys()
    labelled = sorted([(key, text, True) for key, text in good.items()] + [(key, bad[key], False) for key in bad])
    labelled = [one for one in labelled if one[0] not in both]
    train = [one for one in labelled if not _held_out(config, one[0])]
    test = [one for one in labelled if _held_out(config, one[0])]
    _check(train, "to train on")
    _check(test, "held out (clean.quality.heldout)")
    model = LinearModel.train(config, [text for _, text, _ in train], [label for _, _, label in train])
    scores, truth = model.scores([text for _, text, _ in test]), [label for _, _, label in test]
    with place.piece("quality") as piece:
        with piece.write("quality", WEIGHTS) as out:
            np.save(out, model.weights, allow_pickle=False)
        counts = piece.piece.counts
        counts.metrics = metrics(scores, truth)
        counts.metrics["quality_texts"] = {"value": len(train), "n": len(train), "standard_error": None}
        if both:
            counts.warnings.append(f"clean.quality: {len(both)} texts are both good and bad ones; they are left out")
        piece.send_json("quality", "quality.json", {"settings": config.identity(), "metrics": counts.metrics})
        piece.piece.note["spread"] = _spread(scores, truth)
    return piece.piece


def _chosen(config: QualityConfig, texts: Iterable[str]) -> dict[int, str]:
    """The starts of texts with the smallest hashes, each once."""
    heap, seen = list[tuple[int, str]](), set[int]()
    for text in texts:
        start = text[: config.characters]
        key = xxh3_64_intdigest(start)
        if key in seen or not start.strip():
            continue
        seen.add(key)
        # The largest of the kept is on top of the heap.
        if len(heap) < config.documents:
            heappush(heap, (-key, start))
        else:
            seen.discard(-heappushpop(heap, (-key, start))[0])
    return {-key: text for key, text in heap}


def _texts(
    sources: Sequence[Source], listings: Sequence[Artifact], files: Sequence[str], names: Sequence[str]
) -> Iterator[str]:
    if sources:
        yield from _from_sources(sources, listings)
    for uri in files if names else ():
        for row in read_rows(uri, ["text", "source"]):
            if row["source"] in names:
                yield row["text"]


def _from_sources(sources: Sequence[Source], listings: Sequence[Artifact]) -> Iterator[str]:
    from data_curation.extract import ExtractConfig
    from data_curation.extract_steps import TakeText, Task, read_file
    from data_curation.sources.shares import tasks

    config = ExtractConfig(sources=list(sources))
    for share in tasks(config.sources, listings, config.bytes_per_task):
        task = Task(config, share, log_seconds=60)
        for file in share.files:
            yield from (document.text for document in TakeText(task).run(read_file(task, file)))


def _held_out(config: QualityConfig, key: int) -> bool:
    return xxh3_64_intdigest(key.to_bytes(8, "little"), seed=_HELD_OUT) < config.heldout * 2**64


def _check(texts: Sequence[tuple[int, str, bool]], what: str) -> None:
    good = sum(label for _, _, label in texts)
    for kind, number in (("positive", good), ("negative", len(texts) - good)):
        if number < _FEWEST:
            raise InputError(f"clean.quality.{kind}: only {number} different texts {what}: give {_FEWEST} or more")


def _spread(scores: Sequence[float], good: Sequence[bool]) -> dict[str, list[tuple[float, float]]]:
    """Shares of texts by score, for each class."""
    series: dict[str, list[tuple[float, float]]] = {}
    for name, label in (("good texts", True), ("bad texts", False)):
        found = [score for score, one in zip(scores, good, strict=True) if one is label]
        heights, edges = np.histogram(found, bins=20, range=(0, 1))
        middles: Any = (edges[:-1] + edges[1:]) / 2
        series[name] = list(zip(middles.tolist(), (heights / max(1, len(found))).tolist(), strict=True))
    return series
