"""Guarantees of `dedup`: planted duplicates found, one survivor each by the stated rule, whatever the order."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.dedup import DedupConfig, dedup
from data_curation.settings import InputError
from tests.data_curation.places import documents, place, rows, run
from tests.data_curation.prose import text

Rows = list[dict[str, Any]]


def hexed(name: str) -> str:
    """An id of 32 hex digits that sorts as the name does."""
    return name.encode().hex().ljust(32, "0")


def deduplicated(
    tmp_path: Path, files: list[Rows], name: str = "home", workers: int = 1, config: DedupConfig | None = None
) -> tuple[Artifact, Counts]:
    """Deduplicate some files of documents, whose short ids are made whole."""
    some = [[{**row, "id": hexed(row["id"])} for row in file] for file in files]
    given = documents(tmp_path / f"given-{name}", some)
    config = config or DedupConfig()
    return run(dedup, config, given, home=tmp_path / name, scratch=tmp_path / "scratch", workers=workers)


def kept(made: Artifact) -> list[str]:
    """The short ids of what stays, in order."""
    return [bytes.fromhex(row["id"]).rstrip(b"\0").decode() for row in rows(made)]


def dropped(made: Artifact) -> dict[str, tuple[str, str, str]]:
    """(step, reason, short id of what was kept) by the short id of what was dropped."""
    found: dict[str, tuple[str, str, str]] = {}
    for row in rows(made, "decisions"):
        if row["reason"]:
            instead = json.loads(row["scores"])["kept"] if row["scores"] else ""
            names = [bytes.fromhex(id).rstrip(b"\0").decode() for id in (row["id"], instead)]
            found[names[0]] = (row["step"], row["reason"], names[1])
    return found


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
    assert kept(made) == ["c", "a", "e", "f"]
    assert dropped(made) == {"b": ("exact", "equal-text", "a"), "d": ("minhash", "near-duplicate", "e")}
    scores = [json.loads(row["scores"]) for row in rows(made, "decisions") if row["step"] == "minhash"]
    assert scores[0]["similarity"] == pytest.approx(0.99, abs=0.03)
    assert counts.metrics["clusters"]["value"] == 2
    assert counts.taken["documents"] == 6


@pytest.mark.parametrize(("survivor", "stays"), [("longest", "b"), ("newest", "c"), ("best", "d")])
def test_the_survivor_follows_the_rule(tmp_path: Path, survivor: Any, stays: str) -> None:
    """Most bytes, latest date whatever its spelling, or highest quality; what has no value comes last."""
    same = text(1)
    some: Rows = [
        {"id": "a", "text": same, "date": "2020-01-02T00:30:00+02:00", "quality": 0.2},
        {"id": "b", "text": f"{same}   ", "date": "2019", "quality": None},
        {"id": "c", "text": same, "date": "2020-01-01T23:00:00Z", "quality": float("nan")},
        {"id": "d", "text": same, "date": "last week", "quality": 0.9},
        {"id": "e", "text": same, "date": "", "quality": 0.9},
        {"id": "f", "text": same, "date": "2020-01-01T23:00:00Z", "quality": 0.9},
    ]
    made, counts = deduplicated(tmp_path, [some], config=DedupConfig(survivor=survivor))
    assert kept(made) == [stays]
    without = {"longest": [], "newest": ["2 of 6 documents have no date"], "best": ["2 of 6 documents have no quality"]}
    assert [warning.split(":")[0] for warning in counts.warnings] == without[survivor]
    assert {instead for _, _, instead in dropped(made).values()} == {stays}


def test_one_document_of_each_url_stays(tmp_path: Path) -> None:
    """Spellings of one URL count as one; paths and empty URLs never do."""
    some: Rows = [
        {"id": "a", "url": "http://example.org/page", "text": text(1)},
        {"id": "b", "url": "http://EXAMPLE.org/page", "text": text(2, count=9)},
        {"id": "c", "url": "", "text": text(3)},
        {"id": "d", "url": "", "text": text(4)},
        {"id": "e", "url": "index.html", "text": text(5)},
        {"id": "f", "url": "index.html", "text": text(6)},
    ]
    made, _ = deduplicated(tmp_path, [some])
    assert kept(made) == ["b", "c", "d", "e", "f"]
    assert dropped(made) == {"a": ("url", "same-url", "b")}
    made, _ = deduplicated(tmp_path, [some], "without", config=DedupConfig(url=False))
    assert kept(made) == ["a", "b", "c", "d", "e", "f"]


def test_a_url_joins_no_texts(tmp_path: Path) -> None:
    """A page that changed is no link between the texts it had; what is named as kept is in the output."""
    some: Rows = [
        {"id": "a", "url": "http://one.example/", "text": text(1)},
        {"id": "b", "url": "http://one.example/", "text": text(2, count=9)},
        {"id": "c", "url": "http://two.example/", "text": text(1)},
        {"id": "d", "url": "http://three.example/", "text": f"{text(2, count=9)} "},
    ]
    made, _ = deduplicated(tmp_path, [some])
    assert kept(made) == ["c", "d"]
    assert dropped(made) == {"a": ("url", "same-url", "d"), "b": ("exact", "equal-text", "d")}


def test_order_and_workers_change_nothing(tmp_path: Path) -> None:
    """The same documents survive in any order of rows and files, with one worker and with three."""
    draw = random.Random(5)
    some: Rows = [{"id": f"{number:03d}", "text": text(number % 40)} for number in range(100)]
    some += [{"id": f"n{number}", "text": f"{text(number, count=30)} end"} for number in range(5)]
    some += [{"id": f"m{number}", "text": text(number, count=30)} for number in range(5)]
    some += [{"id": f"u{number}", "url": "http://x.example/", "text": text(100 + number)} for number in range(5)]
    stay, digests, why = [], [], []
    for attempt in range(3):
        files = [some[rank::3] for rank in range(3)]
        made, _ = deduplicated(tmp_path, files, str(attempt), 1 + attempt % 2 * 2, DedupConfig(repeated_lines=1))
        stay.append(set(kept(made)))
        why.append(dropped(made))
        digests.append({part: made.part(part).digest for part in made.parts})
        if attempt:
            draw.shuffle(some)
    expected = {*(f"{number:03d}" for number in range(40)), *(f"n{n}" for n in range(5))}
    assert stay[0] - {f"u{n}" for n in range(5)} == stay[1] - {f"u{n}" for n in range(5)} <= expected
    assert stay[0] == stay[1] == stay[2]
    assert why[0] == why[1] == why[2]
    assert digests[0] == digests[1] != digests[2]


def test_one_of_records_with_one_id_stays(tmp_path: Path) -> None:
    """A record that was listed twice has one id; one of the two stays."""
    made, _ = deduplicated(tmp_path, [[{"id": "a", "text": text(1)}], [{"id": "a", "text": text(1)}]])
    assert kept(made) == ["a"]
    assert sorted(row["reason"] for row in rows(made, "decisions")) == ["", "equal-text"]


def test_texts_without_words_meet_only_their_equals(tmp_path: Path) -> None:
    """Texts of signs alone have no shingles: they are no near-duplicates of each other."""
    some: Rows = [{"id": id, "text": one} for id, one in (("a", "***"), ("b", "!!!"), ("c", "***"), ("d", text(1)))]
    made, _ = deduplicated(tmp_path, [some])
    assert kept(made) == ["a", "b", "d"]


def test_the_page_shows_clusters_and_measured_precision(tmp_path: Path) -> None:
    """The largest cluster comes first, by URLs, and dropped near-duplicates are measured against what was kept."""
    some: Rows = [{"id": f"a{n}", "url": f"u{n}", "text": text(1)} for n in range(4)]
    some += [{"id": f"b{n}", "text": f"{text(2, count=40)} {'more ' * n}"} for n in range(3)]
    _, counts = deduplicated(tmp_path, [some[:3], some[3:]])
    assert counts.samples[0] == {"title": "a cluster of 4 documents", "text": "u0\nu1\nu2\nu3"}
    precision = counts.metrics["near_duplicate_precision"]
    assert (precision["value"], precision["n"], precision["standard_error"]) == (1, 2, 0)
    plot = json.loads((tmp_path / "home" / "records" / "plot-similarity.json").read_text())
    assert sum(pairs for _, pairs in plot["series"]["pairs"]) == 2


def test_a_retry_takes_what_is_done(tmp_path: Path) -> None:
    """A second try over the pieces of the first gives the same output."""
    made, counts = deduplicated(tmp_path, [[{"id": "a", "text": text(1)}], [{"id": "b", "text": text(1)}]])
    again = place(tmp_path / "again", tmp_path / "scratch")
    assert "clusters" in again.adopt(made.home)
    given = documents(tmp_path / "same", [[]])
    files = [f"{tmp_path}/given-home/documents/{rank:05d}.parquet" for rank in range(2)]
    given = Artifact("given", f"{tmp_path}/given-home", {"documents": made.part("documents")})
    assert given.uris("documents") == files
    assert dedup(DedupConfig(), given, again).funnel == counts.funnel


def test_no_documents_is_an_error(tmp_path: Path) -> None:
    """Empty files of documents are refused in words."""
    with pytest.raises(InputError, match="none of 0 documents is left"):
        deduplicated(tmp_path, [[], []])


def test_a_foreign_id_is_an_error(tmp_path: Path) -> None:
    """Ids are kept as 16 bytes: others are refused by name."""
    given = documents(tmp_path / "given", [[{"id": "page 7", "text": "one two three"}]])
    with pytest.raises(InputError, match="the id 'page 7' is not 32 hex digits"):
        run(dedup, DedupConfig(), given, home=tmp_path / "home", scratch=tmp_path / "scratch")
