"""Guarantees of the index and the block lists: later crawls are checked against older ones, by name."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_curation.artifact import Artifact
from data_curation.dedup import DedupConfig, dedup
from data_curation.dedup_columns import Columns
from data_curation.dedup_shingles import band_hashes, hash_texts
from data_curation.dedup_signatures import url_key
from data_curation.settings import ConfigError, InputError
from data_curation.sources.listing import resolve
from data_curation.sources.source import Source
from tests.data_curation.places import documents, rows, run
from tests.data_curation.prose import text
from tests.data_curation.test_dedup import Rows, deduplicated, dropped, hexed, kept


def crawl(
    tmp_path: Path, name: str, some: Rows, older: list[str] | None = None, blocked: str = "", **settings: Any
) -> tuple[Artifact, Any]:
    """Deduplicate a crawl against the indexes of older ones and a block list."""
    sources = [Source(name=one, kind="parquet", path=str(tmp_path / one / "index")) for one in older or []]
    lists = list[Source]()
    if blocked:
        (tmp_path / "lists").mkdir(exist_ok=True)
        (tmp_path / "lists" / "some.txt").write_text(blocked)
        lists = [Source(name="lists", kind="lines", path=str(tmp_path / "lists"))]
    given = documents(tmp_path / f"given-{name}", [[{**row, "id": hexed(row["id"])} for row in some]])
    config = DedupConfig(indexes=sources, blocked=lists, **settings)
    listings = [[resolve(source, tmp_path / "listings")[0] for source in each] for each in (sources, lists)]

    def stage(config: DedupConfig, documents: Artifact, place: Any) -> Any:
        return dedup(config, documents, place, *listings)

    return run(stage, config, given, home=tmp_path / name, scratch=tmp_path / "scratch")


def test_index_holds_the_survivors(tmp_path: Path) -> None:
    """The index has 16 bytes of id and text hash, the key of the URL and a number per band, for survivors alone."""
    some: Rows = [{"id": str(n), "url": f"http://x.example/{n}", "text": text(n % 3)} for n in range(6)]
    made, counts = deduplicated(tmp_path, [some])
    index = Columns.of(made.uris("index"))
    table = pq.read_table(made.uris("index")[0])
    assert table["id"].to_pylist() == [bytes.fromhex(hexed(str(number))) for number in range(3)]
    assert table["exact"].to_pylist() == hash_texts([text(number) for number in range(3)], 5).exact
    assert index.numbers("url_key").tolist() == [url_key(f"http://x.example/{number}") for number in range(3)]
    assert [name for name in table.column_names if name.startswith("band")] == [f"band{n:02d}" for n in range(14)]
    assert table.nbytes == 3 * (16 + 8 + 16 + 14 * 8)
    assert counts.metrics["index_documents"]["value"] == 3


def test_matches_name_the_old_document(tmp_path: Path) -> None:
    """By URL, by text and by bands; of a URL's two new documents the one that stays counts."""
    old: Rows = [
        {"id": "A", "url": "http://x.example/a", "text": text(1)},
        {"id": "B", "text": text(2)},
        {"id": "C", "text": text(3, count=40)},
    ]
    new: Rows = [
        {"id": "a", "url": "http://x.example/a", "text": text(7)},
        {"id": "b", "text": text(2).upper()},
        {"id": "c", "url": "http://x.example/c", "text": f"{text(3, count=40)} And a few words more."},
        {"id": "d", "url": "http://x.example/c", "text": text(9)},
        {"id": "e", "text": text(8)},
    ]
    crawl(tmp_path, "first", old)
    made, counts = crawl(tmp_path, "second", new, ["first"])
    assert kept(made) == ["e"]
    assert dropped(made) == {
        "a": ("index", "in-index", "A"),
        "b": ("index", "in-index", "B"),
        "c": ("index", "in-index", "C"),
        "d": ("url", "same-url", "C"),
    }
    assert [row["id"] for row in rows(made, "index")] == [bytes.fromhex(hexed("e"))]
    assert counts.metrics["older_documents"]["value"] == 3
    without, _ = crawl(tmp_path, "third", new[:1], ["first"], url=False)
    assert kept(without) == ["a"]


def test_a_chain_that_reaches_an_old_document_goes(tmp_path: Path) -> None:
    """Each new document is like the next, the first like an old one: all of them go and name it."""
    words = [f"w{number}" for number in range(400)]
    chain = [" ".join([*words[step * 20 :], *(f"x{n}" for n in range(step * 20))]) for step in range(12)]
    first, last = band_hashes(hash_texts([chain[0], chain[-1]], 5), bands=14, rows=8, seed=1)
    assert not (first == last).any()
    crawl(tmp_path, "first", [{"id": "A", "text": chain[0]}])
    new: Rows = [{"id": f"a{step:02d}", "text": chain[step]} for step in range(1, 12)]
    made, _ = crawl(tmp_path, "second", [*new, {"id": "b", "text": text(1)}], ["first"])
    assert kept(made) == ["b"]
    assert dropped(made) == {row["id"]: ("index", "in-index", "A") for row in new}


def test_crawls_add_up(tmp_path: Path) -> None:
    """Two crawls one after the other leave what one run over both leaves; a forgotten index is named."""
    some: Rows = [{"id": f"{number:02d}", "text": text(number % 7)} for number in range(20)]
    one, _ = crawl(tmp_path, "first", some[:5])
    two, _ = crawl(tmp_path, "second", some[5:10], ["first"])
    three, counts = crawl(tmp_path, "third", [*some[10:], {"id": "new", "text": text(9)}], ["first", "second"])
    whole, _ = crawl(tmp_path, "whole", [*some, {"id": "new", "text": text(9)}])
    assert kept(one) + kept(two) + kept(three) == kept(whole)
    assert not counts.warnings
    again, counts = crawl(tmp_path, "again", [{"id": "x", "text": text(0)}], ["second"])
    assert kept(again) == ["x"]
    assert "the index second leaves out what 1 older ones hold" in counts.warnings[0]


@pytest.mark.parametrize(("name", "value"), [("bands", 13), ("rows", 7), ("ngram", 4), ("seed", 2)])
def test_an_index_of_other_settings_is_refused(tmp_path: Path, name: str, value: int) -> None:
    """Hashes of other settings mean nothing here: the message names the setting and both values."""
    crawl(tmp_path, "first", [{"id": "a", "text": text(1)}], **{name: value})
    with pytest.raises(ConfigError, match=rf"dedup.indexes\[0\] \(first\) was made with {name} {value}, this run has"):
        crawl(tmp_path, "second", [{"id": "b", "text": text(1)}], ["first"])


def test_a_file_that_is_no_index_is_refused(tmp_path: Path) -> None:
    """Any other Parquet file is refused by name."""
    (tmp_path / "first" / "index").mkdir(parents=True)
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "first" / "index" / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet: not an index of dedup; dedup\.indexes\[0\]\.path must name"):
        crawl(tmp_path, "second", [{"id": "b", "text": text(1)}], ["first"])


def test_blocked_ids_and_urls_never_come_in(tmp_path: Path) -> None:
    """They go before anything else, so that a blocked document is never the one that stays."""
    some: Rows = [
        {"id": "a", "text": text(1)},
        {"id": "b", "text": text(1)},
        {"id": "c", "url": "http://x.example/c", "text": text(2)},
        {"id": "d", "url": "http://x.example/d", "text": text(3)},
    ]
    blocked = f"# remark\n\n{hexed('a')}\nHTTP://X.example/c\nhttp://other.example/\n{'f' * 32}\n"
    made, counts = crawl(tmp_path, "first", some, blocked=blocked)
    assert kept(made) == ["b", "d"]
    assert {row["reason"]: row["documents"] for row in counts.funnel} == {"blocked-id": 1, "blocked-url": 1}
    with pytest.raises(InputError, match=r"lists: 'x\.example' is neither an id nor a URL"):
        crawl(tmp_path, "second", some, blocked="x.example")


def test_kinds_of_sources_are_checked() -> None:
    """An index must be Parquet, a block list lines."""
    with pytest.raises(ValueError, match=r"dedup\.indexes\[0\]\.kind is 'jsonl': use 'parquet'"):
        DedupConfig(indexes=[Source(name="a", kind="jsonl", path="x")])
    with pytest.raises(ValueError, match=r"dedup\.blocked\[0\]\.kind is 'parquet': use 'lines'"):
        DedupConfig(blocked=[Source(name="a", kind="parquet", path="x")])
