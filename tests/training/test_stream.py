"""The stream of documents: any token of it found directly is the one that reading from the start comes to."""

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from data_curation.shards import Shards
from tests.training.numbered import shards, sizes_of
from training.mixing import MixConfig
from training.stream import Span, Stream, permutation

SPANS = [
    Span(256, 40_000, MixConfig()),
    Span(256, 7, MixConfig(sources={"code": 1})),
    Span(512, 70_001, MixConfig(sources={"web": 5, "books": 1})),
    Span(1024, 150_000, MixConfig(long_share=0.7)),
]


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Stream:
    """Four phases over 65,536 tokens of three sources, some of them read several times."""
    folder = shards(tmp_path_factory.mktemp("shards"), sizes_of(1 << 16), ("web", "books", "code"), number=4)
    return Stream(Shards(folder), 5, SPANS)


def test_stretches_join_to_the_phase(stream: Stream) -> None:
    """Cut at random places, the stretches of a phase hold in every pool what the whole phase holds, in its order."""
    for phase, span in enumerate(SPANS):
        chance = random.Random(phase)
        cuts = sorted({0, span.tokens, *(chance.randrange(span.tokens) for _ in range(40))})
        joined: dict[int, list[int]] = {}
        whole: dict[int, list[int]] = {}
        for bounds, found in ((cuts, joined), ([0, span.tokens], whole)):
            for start, stop in pairwise(bounds):
                documents, begins, sizes = stream.stretch(phase, start, stop)
                assert sizes.sum() == stop - start and (sizes > 0).all()
                for document, begin, size in zip(documents, begins, sizes, strict=True):
                    found.setdefault(int(document), []).extend(range(begin, begin + size))
        assert joined == whole


def test_documents_come_when_their_middle_is_due(stream: Stream) -> None:
    """In a first phase by tokens, every document stands where a plain sort of all of them by due time puts it."""
    lengths, sources = stream.shards.lengths, stream.shards.sources
    times: list[tuple[float, int]] = []
    total = int(lengths.sum())
    for source in range(3):
        for bucket in range(24):
            members = np.flatnonzero((sources == source) & (lengths >> bucket == 1))
            if len(members):
                tokens = stream.stretch(0, 0, 1 << 16)  # the pools' own order is taken from the stream
                mine = [int(one) for one in tokens[0] if one in set(members.tolist())]
                ends = np.cumsum(lengths[mine])
                middles = (ends - lengths[mine] / 2) / lengths[members].sum() * total
                times += list(zip(middles.tolist(), mine, strict=True))
    expected, left = list[int](), 40_000
    for _, document in sorted(times):
        expected.append(document)
        left -= int(lengths[document])
        if left <= 0:
            break
    assert sorted(expected) == sorted(stream.stretch(0, 0, 40_000)[0].tolist())
    assert left <= 0


def test_no_document_falls_behind(stream: Stream) -> None:
    """At any place each source has its share of the tokens, give or take the documents at hand."""
    for tokens in range(5_000, 40_000, 5_000):
        documents, _, sizes = stream.stretch(0, 0, tokens)
        for source in range(3):
            share = sizes[stream.shards.sources[documents] == source].sum() / tokens
            whole = stream.shards.lengths[stream.shards.sources == source].sum() / (1 << 16)
            assert share == pytest.approx(whole, abs=4_000 / tokens)


def test_a_stretch_touches_few_shards(tmp_path: Path) -> None:
    """An epoch goes through the shards one after the other, in another order each time."""
    folder = shards(tmp_path, [10] * 4000, number=20)
    stream = Stream(Shards(folder), 0, [Span(10, 80_000, MixConfig())])
    orders: list[list[int]] = []
    for epoch in range(2):
        found = [
            set(stream.shards.shard_of(stream.stretch(0, start, start + 1000)[0]).tolist())
            for start in range(40_000 * epoch, 40_000 * (epoch + 1), 1000)
        ]
        assert max(len(some) for some in found) <= 2
        orders.append(list(dict.fromkeys(number for some in found for number in sorted(some))))
        assert sorted(orders[-1]) == list(range(20))
    assert orders[0] != orders[1]


def test_a_permutation_is_one_and_follows_from_its_words() -> None:
    """Every number once; other words give another order."""
    assert sorted(permutation(1000, 1, 2).tolist()) == list(range(1000))
    assert permutation(1000, 1, 2).tolist() == permutation(1000, 1, 2).tolist() != permutation(1000, 1, 3).tolist()
