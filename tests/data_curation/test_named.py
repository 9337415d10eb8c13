"""Guarantees of files named by a list: fetched as they are, tried again, nothing asked that is known."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_curation.settings import ConfigError, InputError, TransientError
from data_curation.sources import streams
from data_curation.sources.listing import is_fetched, resolve
from data_curation.sources.source import Source
from tests.data_curation.archives import packed, record
from tests.data_curation.places import rows
from tests.data_curation.prose import page, text
from tests.data_curation.test_bad_input import run, table
from tests.data_curation.web_server import Archive, serving

NAMES = [f"crawl/{number}/x.warc.gz" for number in range(3)]


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    """A server with three WARC files of one page each and a list of them."""
    monkeypatch.setattr(streams, "WAITS", (0.0, 0.0))
    monkeypatch.setattr(streams, "RANGE", 700)  # several requests for each file
    with serving() as server:
        server.files["crawl/warc.paths.gz"] = gzip.compress("\n".join([*NAMES, "crawl/index.html", ""]).encode())
        for number, name in enumerate(NAMES):
            server.files[name] = packed(record(page(number), url=f"https://a.example/{number}"))
        yield server


def crawl(archive: Archive, **settings: Any) -> Source:
    """The source of the list."""
    address = archive.address
    given = {"name": "crawl", "kind": "warc", "paths": f"{address}crawl/warc.paths.gz", "base": address}
    return Source.model_validate(given | settings)


def test_list_is_read_from_a_web_server(archive: Archive, tmp_path: Path) -> None:
    """Every named file is read as a stream; a status of overload and lost connections are tried again."""
    archive.failures = {NAMES[0]: [503, "cut"], NAMES[2]: ["cut", "cut"], "crawl/warc.paths.gz": ["cut"]}
    listed, warnings = resolve(crawl(archive), tmp_path)
    assert [file.path for file in listed.part("files").files] == NAMES
    assert "index.html" in warnings[0]
    made, _ = run(crawl(archive), listed, tmp_path / "home")
    assert [row["text"] for row in rows(made)] == [f"Page {number}\n\n{text(number)}" for number in range(3)]


def test_server_that_stays_away_is_transient(archive: Archive, tmp_path: Path) -> None:
    """A server that goes on failing ends the stage in a way that is worth a retry; no file is called damaged."""
    listed, _ = resolve(crawl(archive), tmp_path)
    archive.failures = {NAMES[1]: [503] * 9}
    with pytest.raises(TransientError, match=r"crawl/1/x\.warc\.gz: .*503"):
        run(crawl(archive), listed, tmp_path / "home", max_bad_files=3)


def test_file_that_the_server_lost_is_named(archive: Archive, tmp_path: Path) -> None:
    """A file that was listed and is gone is left out by name where that is allowed; the others are read."""
    listed, _ = resolve(crawl(archive), tmp_path)
    del archive.files[NAMES[1]]
    with pytest.raises(InputError, match=r"crawl/1/x\.warc\.gz: was listed and is gone \(the server answers 404\)"):
        run(crawl(archive), listed, tmp_path / "strict")
    made, _ = run(crawl(archive), listed, tmp_path / "home", max_bad_files=1)
    assert [row["url"] for row in rows(made)] == ["https://a.example/0", "https://a.example/2"]
    with pytest.raises(InputError, match="was listed and is gone"):
        resolve(crawl(archive), tmp_path)


def test_a_plan_asks_nobody(archive: Archive, tmp_path: Path) -> None:
    """What was listed once is known without the server; what was not cannot be; a changed file changes its stamp."""
    assert not is_fetched(crawl(archive), tmp_path)
    first = resolve(crawl(archive), tmp_path)
    archive.files[NAMES[0]] = packed(record(page(9)))
    assert is_fetched(crawl(archive), tmp_path)
    assert resolve(crawl(archive), tmp_path, ask=False) == first
    again, _ = resolve(crawl(archive), tmp_path)
    assert again.part("files").digest != first[0].part("files").digest
    assert not is_fetched(crawl(archive, files=2), tmp_path)


def test_parquet_is_read_from_a_web_server(archive: Archive, tmp_path: Path) -> None:
    """A format that is read from its end is read in ranges, through a lost connection as well."""
    archive.files |= {"a.parquet": table({"text": ["one", "two"]}), "list.txt": b"a.parquet\n"}
    source = Source(name="given", kind="parquet", paths=f"{archive.address}list.txt")
    listed, _ = resolve(source, tmp_path)
    archive.failures = {"a.parquet": ["cut"]}
    assert [row["text"] for row in rows(run(source, listed, tmp_path / "home")[0])] == ["one", "two"]


def test_some_files_are_chosen_by_hash(archive: Archive, tmp_path: Path) -> None:
    """`files` takes that many; a smaller number takes a part of what a larger one takes."""
    taken = [
        {file.path for file in resolve(crawl(archive, files=number), tmp_path)[0].part("files").files}
        for number in (1, 2, 3)
    ]
    assert [len(paths) for paths in taken] == [1, 2, 3]
    assert taken[0] < taken[1] < taken[2]


@pytest.mark.parametrize("name", ["../secret.warc", "a/../../secret.warc", "/etc/secret.warc"])
def test_names_stay_below_the_base(name: str, tmp_path: Path) -> None:
    """A list on disk names files beside it and none outside."""
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "a.warc").write_bytes(record(page(1)))
    (tmp_path / "lists" / "paths.txt").write_text("# remark\na.warc\n")
    source = Source(name="given", kind="warc", paths=str(tmp_path / "lists" / "paths.txt"))
    listed, _ = resolve(source, tmp_path)
    assert len(rows(run(source, listed, tmp_path / "home")[0])) == 1
    (tmp_path / "lists" / "paths.txt").write_text(name)
    with pytest.raises(ConfigError, match="leads out of the base"):
        resolve(source, tmp_path)


def test_web_folder_needs_a_list(archive: Archive, tmp_path: Path) -> None:
    """A web server lists no folder: the settings are refused with what to give instead."""
    with pytest.raises(ConfigError, match="web servers list no files; give paths"):
        resolve(Source(name="given", kind="warc", path=archive.address), tmp_path)
