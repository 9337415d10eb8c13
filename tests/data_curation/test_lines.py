"""Guarantees of lists of one entry a line: whole or refused by name."""

from pathlib import Path

import pytest

from data_curation.settings import InputError
from data_curation.sources.lines import read_lines
from data_curation.sources.listing import resolve
from data_curation.sources.source import Source
from tests.data_curation.archives import packed, zstd


def entries(folder: Path) -> list[str]:
    """The entries of all files in the folder."""
    source = Source(name="list", kind="lines", path=str(folder))
    return list(read_lines(source, resolve(source, folder.parent / "home")[0]))


def test_entries_come_without_remarks(tmp_path: Path) -> None:
    """Entries of plain, gzip and Zstandard files, without spaces, empty lines and remarks."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_bytes(b"# remark\n one \r\n\ntwo#2")
    (tmp_path / "in" / "b.txt.gz").write_bytes(packed(b"three\n"))
    (tmp_path / "in" / "c.txt.zst").write_bytes(zstd("vier ü".encode()))
    assert entries(tmp_path / "in") == ["one", "two#2", "three", "vier ü"]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.txt.gz", packed(b"one\n" * 999)[:-9], "cut"),
        ("a.txt.zst", zstd(b"one\n" * 999)[:-9], "cut"),
        ("a.txt", b"one\n\xff\n", "line 2 is not UTF-8"),
        ("a.txt", b"one\n" + b"x" * (1 << 21), "line 2 has 2097152 bytes"),
    ],
)
def test_damaged_list_is_refused(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    """Half a block list would let through what it was to block: the file is named instead."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(data)
    with pytest.raises(InputError, match=f"{name}.*{words}"):
        entries(tmp_path / "in")
