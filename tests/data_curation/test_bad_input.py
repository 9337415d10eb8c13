"""Guarantees on bad input: what is wrong is counted and named, nothing else is lost, a rerun finds it repaired."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.extract import ExtractConfig, extract
from data_curation.settings import InputError
from data_curation.sources.listing import resolve
from data_curation.sources.source import Source
from tests.data_curation.archives import packed, record, zstd
from tests.data_curation.places import artifact, place, rows
from tests.data_curation.prose import page, text

PAGES = [record(page(number), url=f"https://a.example/{number}") for number in range(4)]
LINES = [json.dumps({"text": text(number), "url": f"https://a.example/{number}"}).encode() for number in range(4)]


def table(columns: dict[str, Any]) -> bytes:
    """A Parquet file."""
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


GOOD = {
    "x.warc.gz": packed(*PAGES),
    "x.warc": b"".join(PAGES),
    "x.jsonl": b"\n".join(LINES),
    "x.jsonl.gz": packed(b"\n".join(LINES)),
    "x.jsonl.zst": zstd(b"\n".join(LINES)),
    "x.parquet": table({"text": [text(number) for number in range(4)]}),
}
"""Files of four documents each."""


@dataclass(frozen=True)
class Damage:
    """A file, what happens to it, what is said of it, and how many of its records were read."""

    name: str
    make: Callable[[bytes], bytes | None]
    words: str
    read: int = 0
    late: bool = False
    """Whether it happens after the file was listed."""


HALF = len(packed(PAGES[0], PAGES[1]))
DAMAGES = {
    "zst cut in half": Damage("x.jsonl.zst", lambda data: data[: len(data) // 2], "cut or damaged: Truncated"),
    "zst with another name": Damage("x.jsonl.zst", lambda _: b"no frame", "not Zstandard"),
    "empty zst": Damage("x.jsonl.zst", lambda _: b"", "no Zstandard frame"),
    "gzip cut in half": Damage("x.jsonl.gz", lambda data: data[: len(data) // 2], "cut or damaged"),
    "gzip cut in its last bytes": Damage("x.jsonl.gz", lambda data: data[:-2], "cut or damaged"),
    "gzip with a flipped byte": Damage(
        "x.jsonl.gz", lambda data: data[:500] + bytes([data[500] ^ 16]) + data[501:], "cut or damaged"
    ),
    "WARC cut in a record": Damage("x.warc", lambda data: data[: len(data) // 2 - 99], "cut off in its last record", 1),
    "packed WARC cut in a record": Damage("x.warc.gz", lambda data: data[: HALF + 300], "cut or damaged"),
    "WARC cut at a boundary": Damage("x.warc.gz", lambda data: data[:HALF], r"bytes, \d+ when it was listed", 0, True),
    "length too large": Damage("x.warc.gz", lambda _: packed(record(b"", length=9999), *PAGES), "not its length"),
    "length beyond the end": Damage("x.warc", lambda _: PAGES[0] + record(b"", length=9999), "cut off in its last", 1),
    "length too small": Damage("x.warc", lambda _: PAGES[0] + record(page(1), length=50), "not its length", 1),
    "length missing": Damage("x.warc", lambda data: data.replace(b"Content-Length", b"Content-Size"), "Content-Length"),
    "no record": Damage("x.warc", lambda _: page(1), "cut off in a record's header at byte 0"),
    "no gzip": Damage("x.warc.gz", lambda _: page(1), "not gzip"),
    "empty": Damage("x.warc", lambda _: b"", "no WARC record in it"),
    "no text column": Damage("x.parquet", lambda _: table({"body": ["a"]}), "no column 'text', it has body"),
    "column of numbers": Damage("x.parquet", lambda _: table({"text": [1]}), "column 'text' holds int64, not text"),
    "Parquet cut": Damage("x.parquet", lambda data: data[:-5], "not a whole Parquet file"),
    "no record of use": Damage("x.jsonl", lambda _: b'{"body": "x"}\n{"body": "y"}', "none of its 2 records", 2),
    "a folder in its place": Damage("x.jsonl", lambda _: None, "is a folder, a file was listed", 0, True),
    "gone": Damage("x.jsonl", lambda _: None, "was listed and is gone", 0, True),
}


def source_of(folder: Path, name: str) -> Source:
    """The source of a folder of such files."""
    kind = next(kind for kind in ("warc", "jsonl", "parquet", "html") if kind in name)
    return Source.model_validate({"name": "given", "kind": kind, "path": str(folder)})


def run(source: Source, listed: Artifact, home: Path, **settings: Any) -> tuple[Artifact, Counts]:
    """Extract a listed source in a fresh place."""
    where = place(home, home.with_name(f"{home.name}-scratch"))
    counts = extract(ExtractConfig(sources=[source], **settings), [listed], where)
    return artifact(where, "extract"), counts


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_file_is_withdrawn_and_named(tmp_path: Path, case: str) -> None:
    """Alone it fails the stage; where it is allowed, all other documents come, it is named, and repaired it is read."""
    damage, folder = DAMAGES[case], tmp_path / "in"
    folder.mkdir()
    good, bad = folder / damage.name.replace("x", "a"), folder / damage.name
    other = GOOD[damage.name].replace(b"a.example", b"b.example")
    good.write_bytes(other if damage.name in ("x.warc", "x.jsonl") else GOOD[damage.name])
    bad.write_bytes(GOOD[damage.name])
    source = source_of(folder, damage.name)
    if damage.late:
        listed, _ = resolve(source, tmp_path / "sources")
    spoil(bad, case, damage)
    if not damage.late:
        listed, _ = resolve(source, tmp_path / "sources")
    with pytest.raises(InputError, match=rf"1 damaged source files.*{damage.name}.*({damage.words})"):
        run(source, listed, tmp_path / "strict")
    made, counts = run(source, listed, tmp_path / "lenient", max_bad_files=1)
    assert len(rows(made)) == 4
    found = [row for row in rows(made, "decisions") if row["reason"]]
    assert [(row["step"], row["reason"], row["url"]) for row in found] == [("file", "bad-file", damage.name)]
    assert json.loads(found[0]["scores"]) == {"path": damage.name, "records_read": damage.read}
    assert str(tmp_path) not in json.dumps(found)
    assert f"({damage.read} records were read, none is used)" in counts.warnings[0]
    repair(bad)
    bad.write_bytes(GOOD[damage.name])
    again, _ = resolve(source, tmp_path / "sources")
    assert len(rows(run(source, again, tmp_path / "repaired")[0])) == 8


def spoil(path: Path, case: str, damage: Damage) -> None:
    """Do to the file what the case says."""
    data = damage.make(path.read_bytes())
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    elif "folder" in case:
        path.mkdir()


def repair(path: Path) -> None:
    """Take away what is there."""
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


BAD_LINES = {
    "one bad byte": (b'{"text": "caf\xe9"}', "is not JSON in UTF-8"),
    "half a line": (b'{"text": "x', "is not JSON in UTF-8"),
    "a number": (b'{"text": 5}', "its field 'text' is int, not a string"),
    "a list": (b'{"text": ["x"]}', "its field 'text' is list, not a string"),
    "null": (b'{"text": null}', "its field 'text' is missing or null"),
    "no object": (b"[1]", "is no JSON object"),
    "a nesting bomb": (b"[" * 200_000, "is not JSON in UTF-8"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_bad_line_costs_itself_alone(tmp_path: Path, case: str) -> None:
    """One wrong line is dropped and named with its number; every other line of the file becomes a document."""
    bad, words = BAD_LINES[case]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.jsonl").write_bytes(b"\n".join([LINES[0], bad, *LINES[1:]]))
    source = source_of(tmp_path / "in", "x.jsonl")
    listed, _ = resolve(source, tmp_path / "sources")
    made, counts = run(source, listed, tmp_path / "home")
    assert [row["url"] for row in rows(made)] == [f"https://a.example/{number}" for number in range(4)]
    dropped = [row for row in rows(made, "decisions") if row["reason"]]
    assert [(row["step"], row["reason"], row["bytes"]) for row in dropped] == [("record", "bad-record", len(bad))]
    assert dropped[0]["passage"].startswith("x.jsonl: line 2")
    assert words in dropped[0]["passage"]
    assert "1 of 5 records of source 'given' are bad" in counts.warnings[0]
    with pytest.raises(InputError, match=r"x\.jsonl: line 2.*extract\.max_bad_documents allows 0"):
        run(source, listed, tmp_path / "strict", max_bad_documents=0)


@pytest.mark.parametrize(("allowed", "passes"), [(0.18, False), (0.19, True), (2, False), (3, True)])
def test_bad_records_are_limited_by_share_or_number(tmp_path: Path, allowed: float, passes: bool) -> None:
    """Three bad of eleven records: a share is rounded up over all of a source's files, a number is a number."""
    (tmp_path / "in").mkdir()
    for name, bad in (("x", 1), ("y", 2)):
        (tmp_path / "in" / f"{name}.jsonl").write_bytes(b"\n".join([*LINES, *[b"{"] * bad]))
    source = source_of(tmp_path / "in", "x.jsonl")
    listed, _ = resolve(source, tmp_path / "sources")
    settings = {"max_bad_documents": allowed, "bytes_per_task": 1}
    if passes:
        assert len(rows(run(source, listed, tmp_path / "home", **settings)[0])) == 8
    else:
        with pytest.raises(InputError, match=r"3 of 11 records of source 'given' are bad.*allows 2"):
            run(source, listed, tmp_path / "home", **settings)


def test_parquet_row_that_is_no_text_costs_itself_alone(tmp_path: Path) -> None:
    """A null, and bytes that are not UTF-8, are dropped by row; the rows around them come."""
    (tmp_path / "in").mkdir()
    raw = pa.array([b"one", None, b"caf\xe9", b"four"], pa.binary()).view(pa.string())
    (tmp_path / "in" / "x.parquet").write_bytes(table({"text": raw}))
    source = source_of(tmp_path / "in", "x.parquet")
    listed, _ = resolve(source, tmp_path / "sources")
    made, _ = run(source, listed, tmp_path / "home", max_bad_documents=2)
    assert [row["text"] for row in rows(made)] == ["one", "four"]
    passages = [row["passage"] for row in rows(made, "decisions") if row["reason"] == "bad-record"]
    assert [words.split(":")[1] for words in passages] == [" row 2", " row 3"]


def test_nothing_left_is_an_error_with_reasons(tmp_path: Path) -> None:
    """When no document is left, the error says which reasons dropped how many."""
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.html").write_bytes(b"<p></p>")
    source = source_of(tmp_path / "in", "x.html")
    listed, _ = resolve(source, tmp_path / "sources")
    with pytest.raises(InputError, match="none of 3 documents is left; dropped by extract no-text 3"):
        run(source, listed, tmp_path / "home")


def test_file_without_records_is_named(tmp_path: Path) -> None:
    """A list without a line is no damage, and is named all the same."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.jsonl").write_bytes(LINES[0])
    (tmp_path / "in" / "y.jsonl").write_bytes(b"\n")
    source = source_of(tmp_path / "in", "x.jsonl")
    listed, _ = resolve(source, tmp_path / "sources")
    made, counts = run(source, listed, tmp_path / "home")
    assert len(rows(made)) == 1
    assert [(row["step"], row["reason"], row["documents"]) for row in counts.funnel] == [("file", "empty-file", 1)]
