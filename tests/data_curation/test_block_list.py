"""Guarantees of taking pages down: listed pages are not extracted, and their near-duplicates are found by an index."""

import json
from pathlib import Path

from data_curation.dedup import DedupConfig
from data_curation.dedup_near import near_in_index, near_texts
from data_curation.extract import ExtractConfig, extract
from data_curation.sources.listing import resolve
from data_curation.sources.source import Source
from tests.data_curation.places import rows, run
from tests.data_curation.prose import text
from tests.data_curation.test_dedup import deduplicated, hexed


def test_listed_pages_are_not_extracted(tmp_path: Path) -> None:
    """By URL in any spelling and by id; the decision has no text, the key does not know of the list."""
    (tmp_path / "pages").mkdir()
    pages = [{"url": f"https://a.example/{number}", "text": text(number)} for number in range(4)]
    (tmp_path / "pages" / "all.jsonl").write_text("\n".join(map(json.dumps, pages)))
    source = Source(name="pages", kind="jsonl", path=str(tmp_path / "pages"))
    listed = [resolve(source, tmp_path / "sources")[0]]
    config = ExtractConfig(sources=[source])
    everything, _ = run(extract, config, listed, home=tmp_path / "all", scratch=tmp_path / "scratch")
    last = rows(everything)[3]["id"]
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "00001.txt").write_text(f"# a request\nHTTP://www.a.example/1?utm_source=x\n{last.upper()}\n")
    blocked = Source(name="takedown", kind="lines", path=str(tmp_path / "lists"))
    fewer = ExtractConfig(sources=[source], blocked=[blocked])
    made, counts = run(extract, fewer, listed, home=tmp_path / "some", scratch=tmp_path / "scratch")
    assert [row["url"][-1] for row in rows(made)] == ["0", "2"]
    gone = [row for row in rows(made, "decisions") if row["reason"]]
    assert {(row["url"][-1], row["step"], row["reason"], row["passage"]) for row in gone} == {
        ("1", "record", "taken-down", ""),
        ("3", "record", "taken-down", ""),
    }
    assert counts.made["documents"] == 2
    assert fewer.identity() == config.identity()


def test_near_duplicates_by_index_and_by_text(tmp_path: Path) -> None:
    """What equals a text or shares a band with it, and nothing else; texts too short for a band are met by equality."""
    long, short = text(3, count=40), "Four words are few."
    some = [
        {"id": name, "text": one} for name, one in (("a", long), ("b", text(4)), ("c", short), ("d", "Another one."))
    ]
    made, _ = deduplicated(tmp_path, [some])
    config, index = DedupConfig(), made.uris("index", ".parquet")
    assert near_in_index(config, index, [f"{long} And a few words more."]) == [hexed("a")]
    assert near_in_index(config, index, [short.upper(), text(9)]) == [hexed("c")]
    assert near_in_index(config, index, [text(9)]) == []
    candidates = {row["id"]: row["text"] for row in some}
    assert near_texts(config, candidates, [f"{long} And a few words more.", short]) == ["a", "c"]
    assert near_texts(config, {}, [long]) == []
