"""Guarantees of `dedup`: planted duplicates found at the published rate, one survivor each, whatever the order."""

import random
from pathlib import Path

import numpy as np
import pytest

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.dedup import DedupConfig, dedup
from data_curation.dedup_signatures import bands, exact
from data_curation.grams import shingles, words
from data_curation.settings import InputError
from tests.data_curation.places import documents, rows, run
from tests.data_curation.prose import text

Rows = list[dict[str, str]]


def deduplicated(tmp_path: Path, files: list[Rows], name: str = "home", workers: int = 1) -> tuple[Artifact, Counts]:
    """Deduplicate some files of documents."""
    given = documents(tmp_path / f"given-{name}", files)
    return run(dedup, DedupConfig(), given, home=tmp_path / name, scratch=tmp_path / "scratch", workers=workers)


def similar(similarity: float, number: int, draw: random.Random) -> tuple[str, str]:
    """Two texts of one-word shingles whose Jaccard index is the given one."""
    size = 200
    shared = round(2 * size * similarity / (1 + similarity))
    common = [f"c{number}x{index}" for index in range(shared)]
    sides = [[f"{side}{number}x{index}" for index in range(size - shared)] for side in "ab"]
    first, second = (" ".join(draw.sample(common + own, size)) for own in sides)
    return first, second


@pytest.mark.parametrize("similarity", [0.5, 0.6, 0.7, 0.8, 0.9])
def test_recall_follows_the_formula(similarity: float) -> None:
    """Planted pairs of similarity s meet with probability 1 - (1 - s^8)^14, within four standard errors."""
    config, draw, pairs = DedupConfig(ngram=1), random.Random(similarity), 400
    met = 0
    for number in range(pairs):
        first, second = similar(similarity, number, draw)
        met += any(one == other for one, other in zip(bands(config, first), bands(config, second), strict=True))
    both = [set(shingles(words(one), 1)) for one in similar(similarity, 0, draw)]
    true = len(both[0] & both[1]) / len(both[0] | both[1])
    expected = 1 - (1 - true**8) ** 14
    error = np.sqrt(expected * (1 - expected) / pairs)
    assert abs(met / pairs - expected) <= 4 * error + 1 / pairs


def test_planted_duplicates_are_found(tmp_path: Path) -> None:
    """Equal texts (case and spaces aside) and nearly equal ones go; the longest stays; each decision names it."""
    files: list[Rows] = [
        [{"id": "b", "text": text(1)}, {"id": "c", "text": text(2)}, {"id": "d", "text": text(3, count=40)}],
        [
            {"id": "a", "text": text(1).upper()},
            {"id": "e", "text": f"{text(3, count=40)} One more sentence, longer than before."},
            {"id": "f", "text": text(4)},
        ],
    ]
    made, counts = deduplicated(tmp_path, files)
    assert [row["id"] for row in rows(made)] == ["c", "a", "e", "f"]
    dropped = {
        row["id"]: (row["step"], row["reason"], row["scores"]) for row in rows(made, "decisions") if row["reason"]
    }
    assert dropped == {
        "b": ("exact", "equal-text", '{"kept": "a"}'),
        "d": ("minhash", "near-duplicate", '{"kept": "e"}'),
    }
    assert counts.metrics["clusters"]["value"] == 2
    assert counts.taken["documents"] == 6


def test_order_and_workers_change_nothing(tmp_path: Path) -> None:
    """The same documents survive in any order of rows and files, with one worker and with three."""
    draw = random.Random(5)
    some: Rows = [{"id": f"{number:03d}", "text": text(number % 40)} for number in range(100)]
    some += [{"id": f"n{number}", "text": f"{text(number, count=30)} end"} for number in range(5)]
    some += [{"id": f"m{number}", "text": text(number, count=30)} for number in range(5)]
    kept, digests = [], []
    for attempt in range(3):
        made, _ = deduplicated(tmp_path, [some[rank::3] for rank in range(3)], str(attempt), 1 + attempt % 2 * 2)
        kept.append({row["id"] for row in rows(made)})
        digests.append({part: made.part(part).digest for part in made.parts})
        if attempt:
            draw.shuffle(some)
    assert kept[0] == kept[1] == kept[2] == {*(f"{number:03d}" for number in range(40)), *(f"n{n}" for n in range(5))}
    assert digests[0] == digests[1] != digests[2]


def test_one_of_records_with_one_id_stays(tmp_path: Path) -> None:
    """A record that was listed twice has one id; one of the two stays."""
    made, _ = deduplicated(tmp_path, [[{"id": "a", "text": text(1)}], [{"id": "a", "text": text(1)}]])
    assert [row["id"] for row in rows(made)] == ["a"]
    assert sorted(row["reason"] for row in rows(made, "decisions")) == ["", "equal-text"]


def test_texts_without_words_meet_only_their_equals(tmp_path: Path) -> None:
    """Texts of signs alone have no shingles: they are no near-duplicates of each other."""
    some: Rows = [{"id": id, "text": one} for id, one in (("a", "***"), ("b", "!!!"), ("c", "***"), ("d", text(1)))]
    made, _ = deduplicated(tmp_path, [some])
    assert [row["id"] for row in rows(made)] == ["a", "b", "d"]


def test_index_holds_the_survivors(tmp_path: Path) -> None:
    """The index has id, URL and bands of each survivor, as the same text gives them again."""
    some: Rows = [{"id": str(number), "url": f"u{number}", "text": text(number % 3)} for number in range(6)]
    made, _ = deduplicated(tmp_path, [some])
    index = rows(made, "index")
    assert [(row["id"], row["url"]) for row in index] == [("0", "u0"), ("1", "u1"), ("2", "u2")]
    assert [row["bands"] for row in index] == [bands(DedupConfig(), text(number)) for number in range(3)]
    assert [row["exact"] for row in index] == [exact(text(number)) for number in range(3)]


def test_no_documents_is_an_error(tmp_path: Path) -> None:
    """Empty files of documents are refused in words."""
    with pytest.raises(InputError, match="none of 0 documents is left"):
        deduplicated(tmp_path, [[], []])
