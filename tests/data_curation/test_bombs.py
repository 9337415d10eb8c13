"""Guarantees on bombs and odd bytes: dropped by name or read right, in little memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from data_curation.sources.listing import resolve
from tests.data_curation.archives import packed, record, zstd
from tests.data_curation.places import rows
from tests.data_curation.prose import page, text
from tests.data_curation.test_bad_input import LINES, PAGES, run, source_of

MEASURE = """
import resource, sys
from data_curation.records import read
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = [(raw.drop, raw.size) for raw in read(sys.argv[1], sys.argv[2], "x", 4 << 20)]
print(found, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
ZEROS = b"\0" * (64 << 20)
HEAD, TAIL = record(b"", length=20 * len(ZEROS)).removesuffix(b"\r\n\r\n").rsplit(b"\r\n\r\n", 2)[0], b"\r\n\r\n"
BOMBS = {
    "x.warc.gz": packed(HEAD + TAIL) + packed(ZEROS) * 20 + packed(TAIL + PAGES[0]),
    "packed-page.warc": record(packed(ZEROS) * 20, head="HTTP/1.1 200 OK\r\nContent-Encoding: gzip") + PAGES[0],
    "x.jsonl.gz": packed(ZEROS) * 20 + packed(b"\n" + LINES[0]),
    "x.jsonl.zst": zstd(ZEROS) * 20 + zstd(b"\n" + LINES[0]),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_dropped_and_takes_little_memory(tmp_path: Path, name: str) -> None:
    """1.3 GB out of 1.5 MB are one record that is too large; what follows is read; memory grows by less than 100 MB."""
    (tmp_path / name).write_bytes(BOMBS[name])
    assert len(BOMBS[name]) < 1_500_000
    command = [sys.executable, "-c", MEASURE, str(tmp_path / name), "warc" if "warc" in name else "jsonl"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    found, memory = done.stdout.rsplit(" ", 1)
    # Of a page that its server had packed the record itself is small, and whole.
    size = 0 if name == "packed-page.warc" else 20 * len(ZEROS) + (len(HEAD + TAIL) if "warc" in name else 0)
    assert found == f"[('record-too-large', {size}), ('', 0)]"
    assert int(memory) < 100


def test_odd_pages_are_dropped_by_name_or_read_right(tmp_path: Path) -> None:
    """Nesting bombs, huge and empty pages are dropped by name; NULs and wrong labels of the encoding are undone."""
    words = " ".join(f"Der Bäcker grüßt die Königin im schönen Städtchen, Strophe {number}." for number in range(40))
    body = f"<html><body><p>{words}</p></body></html>"
    nul = page(2).replace(b" ", b"\0 ", 40)
    records = {
        "deep": record(b"<div>" * 200_000 + b"x"),
        "huge": record(b"<p>" + b"word " * 8_000_000),
        "latin": record(body.encode("cp1252"), content_type="text/html; charset=utf-8"),
        "utf": record(body.encode(), content_type="text/html; charset=iso-8859-1"),
        "unknown": record(body.encode(), content_type='text/html; charset="no-such"'),
        "nul": record(nul),
        "blank": record(b" \n"),
    }
    named = {
        name: one.replace(b"https://a.example/", f"https://{name}.example/".encode()) for name, one in records.items()
    }
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.warc.gz").write_bytes(packed(*named.values()))
    source = source_of(tmp_path / "in", "x.warc.gz")
    listed, _ = resolve(source, tmp_path / "sources")
    made, _ = run(source, listed, tmp_path / "home")
    reasons = {row["url"].split(".")[0].removeprefix("https://"): row["reason"] for row in rows(made, "decisions")}
    assert {name: reason for name, reason in reasons.items() if reason} == {
        "deep": "too-deep",
        "huge": "record-too-large",
        "blank": "empty",
    }
    assert set(reasons) == set(named)
    texts = {row["url"].split(".")[0].removeprefix("https://"): row["text"] for row in rows(made)}
    assert texts["latin"] == texts["utf"] == texts["unknown"] == words
    assert texts["nul"] == f"Page 2\n\n{text(2)}"


def test_odd_texts_are_made_right(tmp_path: Path) -> None:
    """Halves of surrogate pairs become the replacement character, NULs go; the text around them stays as it is."""
    (tmp_path / "in").mkdir()
    odd = [{"text": "one \ud800 two \udfff", "url": "\ud801"}, {"text": "a\0b"}, {"text": "\0 "}]
    (tmp_path / "in" / "x.jsonl").write_text("\n".join(json.dumps(row) for row in odd))
    source = source_of(tmp_path / "in", "x.jsonl")
    listed, _ = resolve(source, tmp_path / "sources")
    made, counts = run(source, listed, tmp_path / "home")
    assert [(row["text"], row["url"]) for row in rows(made)] == [("one \ufffd two \ufffd", "\ufffd"), ("ab", "")]
    assert [(row["reason"], row["documents"]) for row in counts.funnel] == [("no-text", 1)]
