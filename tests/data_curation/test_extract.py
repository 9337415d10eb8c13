"""Guarantees of `extract`: every record decided on, no damaged file half used, ids from records alone."""

import json
import threading
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_curation import held
from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.extract import ExtractConfig, extract
from data_curation.files import write_bytes
from data_curation.place import Place
from data_curation.settings import InputError, TransientError
from data_curation.sources import warc
from data_curation.sources.listing import resolve
from data_curation.sources.source import Source
from tests.data_curation.archives import packed, record
from tests.data_curation.places import artifact, place, rows
from tests.data_curation.prose import page, text


def run(folder: Path | str, kind: str, home: Path, **settings: Any) -> tuple[Artifact, Counts]:
    """Extract a folder of files of one kind."""
    source = Source.model_validate({"name": "given", "kind": kind, "path": str(folder)})
    listed, _ = resolve(source, home / "sources")
    where = place(home / "made", home / "scratch")
    counts = extract(ExtractConfig(sources=[source], **settings), [listed], where)
    return artifact(where, "extract"), counts


def test_every_record_is_decided_on(tmp_path: Path) -> None:
    """Pages become documents; other records are named with their reason; records about records do not count."""
    (tmp_path / "in").mkdir()
    image = record(b"GIF89a").replace(b"text/html", b"image/gif")
    records = [
        record(b"software: x", kind="warcinfo"),
        record(page(1)),
        record(b"GET /", kind="request"),
        record(b"gone", head="HTTP/1.1 404 Not Found"),
        image,
        record(b"<p></p>"),
        record(b"", kind="revisit"),
        record(page(2)),
    ]
    (tmp_path / "in" / "a.warc.gz").write_bytes(packed(*records))
    made, counts = run(tmp_path / "in", "warc", tmp_path)
    reasons = Counter(row["reason"] for row in rows(made, "decisions"))
    assert reasons == {"": 2, "http-404": 1, "not-html": 1, "no-text": 1, "record-revisit": 1}
    found = rows(made)
    assert [row["title"] for row in found] == ["Page 1", "Page 2"]
    assert found[0]["date"] == "2020-02-02T02:02:02Z"
    assert found[0]["text"] == "Page 1\n\n" + text(1)
    assert counts.taken["documents"] == 6
    assert sum(row["documents"] for row in counts.funnel) == 4


def test_gzip_and_chunked_pages_are_undone(tmp_path: Path) -> None:
    """A body that the server packed or cut into chunks is read as the page it is."""
    (tmp_path / "in").mkdir()
    squeezed = zlib.compress(page(1), wbits=31)
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (page(2)[:100], page(2)[100:], b""))
    head = "HTTP/1.1 200 OK\r\n"
    records = [
        record(squeezed, head=f"{head}Content-Encoding: gzip"),
        record(chunks, head=f"{head}Transfer-Encoding: chunked"),
    ]
    (tmp_path / "in" / "a.warc").write_bytes(b"".join(records))
    made, _ = run(tmp_path / "in", "warc", tmp_path)
    assert [row["text"] for row in rows(made)] == [f"Page {number}\n\n{text(number)}" for number in (1, 2)]


def test_more_bad_files_than_allowed_fail(tmp_path: Path) -> None:
    """Damaged files are counted over all tasks, and one too many fails the stage."""
    warc.write([warc.Page("https://a.example/1", page(1))], tmp_path / "in")
    for name in ("b", "c"):
        (tmp_path / "in" / f"{name}.warc.gz").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"2 damaged source files, extract\.max_bad_files allows 1"):
        run(tmp_path / "in", "warc", tmp_path, max_bad_files=1, bytes_per_task=1)


def test_wet_texts_are_taken_as_they_are(tmp_path: Path) -> None:
    """Conversion records of a WET file become documents with their declared language; one that is no UTF-8 does not."""
    (tmp_path / "in").mkdir()
    made_of = [
        record(b"Software-Info: x", kind="warcinfo", content_type="application/warc-fields"),
        record("Grüße aus Köln".encode(), kind="conversion", content_type="text/plain").replace(
            b"Content-Length", b"WARC-Identified-Content-Language: deu,eng\r\nContent-Length", 1
        ),
        record(b"caf\xe9", kind="conversion", content_type="text/plain"),
        record(b"\x00\x01", kind="conversion", content_type="application/pdf"),
    ]
    (tmp_path / "in" / "a.warc.wet.gz").write_bytes(packed(*made_of))
    made, counts = run(tmp_path / "in", "warc", tmp_path)
    assert [(row["text"], row["declared_language"]) for row in rows(made)] == [("Grüße aus Köln", "deu")]
    assert {row["reason"]: row["documents"] for row in counts.funnel} == {"bad-record": 1, "record-conversion": 1}


def test_warc_on_s3_is_read_and_a_cut_one_named(bucket: str, tmp_path: Path) -> None:
    """Objects of a prefix give the documents that files of a folder give; a damaged object is left out by name."""
    warc.write([warc.Page(f"https://a.example/{number}", page(number)) for number in range(300)], tmp_path / "in")
    local, _ = run(tmp_path / "in", "warc", tmp_path / "local")
    for path in (tmp_path / "in").iterdir():
        write_bytes(f"{bucket}/pages/{path.name}", path.read_bytes())
    remote, _ = run(f"{bucket}/pages", "warc", tmp_path / "remote")
    assert remote.part("documents").digest == local.part("documents").digest
    write_bytes(f"{bucket}/pages/z.warc.gz", (tmp_path / "in" / "web-00000.warc.gz").read_bytes()[:-9])
    lenient, counts = run(f"{bucket}/pages", "warc", tmp_path / "lenient", max_bad_files=1)
    assert len(rows(lenient)) == 300
    assert "z.warc.gz" in counts.warnings[0]


def test_many_texts_wait_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents that wait for their file's end in a temporary file come out as those that wait in memory."""
    warc.write([warc.Page(f"https://a.example/{number}", page(number)) for number in range(20)], tmp_path / "in")
    in_memory, _ = run(tmp_path / "in", "warc", tmp_path / "memory")
    monkeypatch.setattr(held, "MEMORY", 3000)
    on_disk, _ = run(tmp_path / "in", "warc", tmp_path / "disk")
    assert on_disk.part("documents").digest == in_memory.part("documents").digest
    assert list((tmp_path / "disk" / "scratch").iterdir()) == []


def test_fields_of_rows_are_named_in_the_source(tmp_path: Path) -> None:
    """Text, address, title, date and language come from the fields that the source names, inner ones included."""
    row = {"body": "words", "meta": {"link": "https://a.example", "lang": "sv"}, "name": "Title", "when": "2020-02-02"}
    for kind in ("jsonl", "parquet"):
        folder = tmp_path / kind
        folder.mkdir()
        if kind == "jsonl":
            (folder / "a.jsonl").write_text(json.dumps(row))
        else:
            pq.write_table(pa.Table.from_pylist([row]), folder / "a.parquet")
        fields = {"text": "body", "url": "meta.link", "title": "name", "date": "when", "language": "meta.lang"}
        names = {f"{name}_field": field for name, field in fields.items()}
        source = Source.model_validate({"name": "given", "kind": kind, "path": str(folder)} | names)
        listed, _ = resolve(source, tmp_path / "sources")
        where = place(tmp_path / f"made-{kind}", tmp_path)
        extract(ExtractConfig(sources=[source]), [listed], where)
        found = rows(artifact(where))[0]
        assert [found[name] for name in ("text", "url", "title", "date", "declared_language")] == [
            "words", "https://a.example", "Title", "2020-02-02", "sv",
        ]  # fmt: skip


def test_html_folder_is_read(tmp_path: Path) -> None:
    """HTML files become documents whose URL is their path below the folder."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "a.html").write_bytes(page(4))
    made, _ = run(tmp_path / "in", "html", tmp_path)
    assert [(row["url"], row["text"]) for row in rows(made)] == [("sub/a.html", f"Page 4\n\n{text(4)}")]


def test_ids_follow_from_records_alone(tmp_path: Path) -> None:
    """A record has one id, whatever file, task or folder it comes from; distinct records have distinct ids."""
    pages = [warc.Page(f"https://a.example/{number}", page(number)) for number in range(10)]
    warc.write(pages, tmp_path / "one")
    warc.write(pages[5:], tmp_path / "two")
    (tmp_path / "two" / "web-00000.warc.gz").rename(tmp_path / "two" / "z.warc.gz")
    warc.write(pages[:5], tmp_path / "two")
    one, _ = run(tmp_path / "one", "warc", tmp_path / "home1")
    two, _ = run(tmp_path / "two", "warc", tmp_path / "home2", bytes_per_task=1)
    assert len(one.part("documents").files) == 1
    assert len(two.part("documents").files) == 2
    assert [row["id"] for row in rows(one)] == [row["id"] for row in rows(two)]
    assert len({row["id"] for row in rows(one)}) == 10


def test_killed_worker_fails_the_stage_and_a_retry_finishes_it(tmp_path: Path) -> None:
    """A worker that is killed with -9 ends the stage; a retry keeps what was complete and gives the unbroken digest."""
    for number in range(10):
        warc.write(
            [warc.Page(f"https://a.example/{number}/{item}", page(item)) for item in range(30)], tmp_path / "one"
        )
        (tmp_path / "one" / "web-00000.warc.gz").rename(tmp_path / "one" / f"{number}.warc.gz")
    source = Source(name="given", kind="warc", path=str(tmp_path / "one"))
    listed, _ = resolve(source, tmp_path / "sources")
    config = ExtractConfig(sources=[source], bytes_per_task=1)
    where, unbroken = place(tmp_path / "home", tmp_path / "s1", workers=2), place(tmp_path / "whole", tmp_path / "s2")
    killer = threading.Thread(target=kill_worker, args=(where,))
    killer.start()
    with pytest.raises(TransientError, match="a worker was killed"):
        extract(config, [listed], where)
    killer.join()
    before = {piece.name for piece in where.pieces()}
    extract(config, [listed], where)
    extract(config, [listed], unbroken)
    assert len(before) < 10
    made, expected = artifact(where), artifact(unbroken)
    assert {name: part.digest for name, part in made.parts.items()} == {
        name: part.digest for name, part in expected.parts.items()
    }


def kill_worker(where: Place) -> None:
    """End one worker with -9 as soon as a task has left a piece: then both are at work."""
    while not where.pieces():
        pass
    server = next(one for one in psutil.Process().children() if "forkserver" in " ".join(one.cmdline()))
    server.children()[0].kill()
