"""Guarantees of `extract`: every record decided on, no damaged file half used, ids from records alone."""

import json
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.extract import ExtractConfig, extract
from data_curation.settings import InputError
from data_curation.sources import warc
from data_curation.sources.listing import resolve
from data_curation.sources.source import Source
from tests.data_curation.places import artifact, place, rows
from tests.data_curation.prose import page, text


def run(folder: Path, kind: str, home: Path, **settings: Any) -> tuple[Artifact, Counts]:
    """Extract a folder of files of one kind."""
    source = Source.model_validate({"name": "given", "kind": kind, "path": str(folder)})
    listed, _ = resolve(source, home / "sources")
    where = place(home / "made", home / "scratch")
    counts = extract(ExtractConfig(sources=[source], **settings), [listed], where)
    return artifact(where, "extract"), counts


def record(body: bytes, *, kind: str = "response", head: str = "HTTP/1.1 200 OK", length: int | None = None) -> bytes:
    """One WARC record, its Content-Length right unless another is given."""
    payload = f"{head}\r\nContent-Type: text/html\r\n\r\n".encode() + body if kind == "response" else body
    fields = (
        f"WARC-Type: {kind}\r\nWARC-Target-URI: https://a.example/{len(body)}\r\nWARC-Date: 2020-02-02T02:02:02Z\r\n"
    )
    fields += "Content-Type: application/http; msgtype=response\r\n" if kind == "response" else ""
    size = len(payload) if length is None else length
    return f"WARC/1.0\r\n{fields}Content-Length: {size}\r\n\r\n".encode() + payload + b"\r\n\r\n"


def packed(*members: bytes) -> bytes:
    """Gzip members one after another."""
    made = b""
    for member in members:
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        made += packer.compress(member) + packer.flush()
    return made


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


DAMAGES = {
    "cut in the middle": lambda data: data[: len(data) // 2],
    "cut in the last member's end": lambda data: data[:-3],
    "a flipped byte": lambda data: data[:-200] + bytes([data[-200] ^ 0xFF]) + data[-199:],
    "length too long": lambda _: packed(record(page(1), length=99_999), record(page(2))),
    "length too short": lambda _: packed(record(page(1), length=50), record(page(2))),
    "length missing": lambda _: packed(record(page(1)).replace(b"Content-Length", b"Content-Size", 1)),
    "not a WARC": lambda _: packed(page(1)),
    "no gzip": lambda _: page(1),
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_warc_is_an_error_or_left_out_whole(tmp_path: Path, damage: str) -> None:
    """A damaged file is named in an error, or with max_bad_files left out as a whole, named and counted."""
    warc.write([warc.Page(f"https://a.example/{number}", page(number)) for number in range(20)], tmp_path / "in")
    bad = tmp_path / "in" / "web-00001.warc.gz"
    bad.write_bytes(DAMAGES[damage]((tmp_path / "in" / "web-00000.warc.gz").read_bytes()))
    with pytest.raises(InputError, match=r"web-00001\.warc\.gz"):
        run(tmp_path / "in", "warc", tmp_path / "strict")
    made, counts = run(tmp_path / "in", "warc", tmp_path / "lenient", max_bad_files=1)
    assert {row["url"] for row in rows(made)} == {f"https://a.example/{number}" for number in range(20)}
    assert len(rows(made)) == 20
    assert next(row for row in counts.funnel if row["reason"] == "bad-file")["documents"] == 1
    assert "web-00001.warc.gz" in counts.warnings[0]


def test_file_cut_between_two_records_is_noticed(tmp_path: Path) -> None:
    """A file that lost whole records at its end looks sound; that it is shorter than listed gives it away."""
    members = [packed(record(page(number))) for number in range(4)]
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.warc.gz"
    path.write_bytes(b"".join(members))
    source = Source(name="given", kind="warc", path=str(tmp_path / "in"))
    listed, _ = resolve(source, tmp_path / "sources")
    path.write_bytes(b"".join(members[:2]))
    with pytest.raises(InputError, match=r"a\.warc\.gz: \d+ bytes, \d+ when it was listed"):
        extract(ExtractConfig(sources=[source]), [listed], place(tmp_path / "made", tmp_path))


def test_more_bad_files_than_allowed_fail(tmp_path: Path) -> None:
    """Damaged files are counted over all tasks, and one too many fails the stage."""
    warc.write([warc.Page("https://a.example/1", page(1))], tmp_path / "in")
    for name in ("b", "c"):
        (tmp_path / "in" / f"{name}.warc.gz").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"2 damaged source files, extract\.max_bad_files allows 1"):
        run(tmp_path / "in", "warc", tmp_path, max_bad_files=1, bytes_per_task=1)


def test_gzip_bomb_is_dropped(tmp_path: Path) -> None:
    """A small record that unpacks to far more than allowed is dropped by name, whoever packed it."""
    (tmp_path / "in").mkdir()
    bomb = b"<p>" + b" " * 40_000_000
    inner = record(zlib.compress(bomb, wbits=31), head="HTTP/1.1 200 OK\r\nContent-Encoding: gzip")
    (tmp_path / "in" / "a.warc.gz").write_bytes(packed(record(bomb), inner, record(page(1))))
    made, counts = run(tmp_path / "in", "warc", tmp_path)
    assert len(rows(made)) == 1
    assert [(row["reason"], row["documents"]) for row in counts.funnel] == [("record-too-large", 2)]


def test_jsonl_is_read_or_refused_by_line(tmp_path: Path) -> None:
    """JSONL rows become documents, a lone surrogate included; a line that is not JSON in UTF-8 is named."""
    (tmp_path / "in").mkdir()
    lines = [json.dumps({"text": "one \ud800", "url": "u"}), "", json.dumps({"text": "two", "date": "2020-01-01"})]
    (tmp_path / "in" / "a.jsonl").write_text("\n".join(lines))
    made, _ = run(tmp_path / "in", "jsonl", tmp_path / "good")
    assert [row["text"].split()[0] for row in rows(made)] == ["one", "two"]
    assert rows(made)[1]["date"] == "2020-01-01"
    (tmp_path / "in" / "b.jsonl").write_bytes(b'{"text": "x"}\n{"text": "\xff"}\n')
    with pytest.raises(InputError, match=r"b\.jsonl: line 2 is not JSON in UTF-8"):
        run(tmp_path / "in", "jsonl", tmp_path / "bad")
    (tmp_path / "in" / "b.jsonl").write_bytes(b'{"body": "x"}\n')
    with pytest.raises(InputError, match="line 1: no string `text`"):
        run(tmp_path / "in", "jsonl", tmp_path / "worse")


def test_parquet_is_read_or_refused(tmp_path: Path) -> None:
    """Parquet rows become documents; a cut file is named."""
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": ["one", "two"], "other": [1, 2]}), tmp_path / "in" / "a.parquet")
    made, _ = run(tmp_path / "in", "parquet", tmp_path / "good")
    assert [row["text"] for row in rows(made)] == ["one", "two"]
    (tmp_path / "in" / "a.parquet").write_bytes((tmp_path / "in" / "a.parquet").read_bytes()[:-5])
    with pytest.raises(InputError, match=r"a\.parquet: not a whole Parquet file"):
        run(tmp_path / "in", "parquet", tmp_path / "bad")


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


def test_nothing_left_is_an_error_with_reasons(tmp_path: Path) -> None:
    """When no document is left, the error says which reasons dropped how many."""
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.html").write_bytes(b"<p></p>")
    with pytest.raises(InputError, match="none of 3 documents is left; dropped by extract no-text 3"):
        run(tmp_path / "in", "html", tmp_path)
