"""Files of chat sources: compressed, on s3, cut, damaged or replaced; what is wrong is named and nothing is lost."""

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_curation.decontaminate import DecontaminateConfig
from data_curation.dialogues import DialoguesConfig, dialogues
from data_curation.place import Place
from data_curation.settings import InputError
from data_curation.sources.listing import resolve
from data_curation.sources.source import Source
from tests.data_curation.archives import zstd
from tests.data_curation.chats import ALL_TRAIN, NO_TASKS, chat, prepare, said

RECORDS = [chat(f"question {number}", f"answer {number}") for number in range(400)]
LINES = "\n".join(map(json.dumps, RECORDS)).encode()
PACKED = gzip.compress(LINES, mtime=0)


def table(column: pa.Array | None = None) -> bytes:
    """The records as Parquet, or a table of this column of prompts with completions."""
    out = io.BytesIO()
    made = pa.Table.from_pylist(RECORDS) if column is None else pa.table({"prompt": column, "completion": ["a", "b"]})
    pq.write_table(made, out)
    return out.getvalue()


def config(path: str, kind: str = "jsonl") -> DialoguesConfig:
    """One source there."""
    source = Source.model_validate({"name": "talk", "kind": kind, "path": path})
    return DialoguesConfig.model_validate({"sources": [source], "tasks": NO_TASKS, "near": None, **ALL_TRAIN})


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.jsonl", LINES), ("a.jsonl.gz", PACKED), ("a.jsonl.zst", zstd(LINES)), ("a.parquet", table())],
)
def test_every_kind_of_file_gives_every_record_here_and_on_s3(
    name: str, data: bytes, tmp_path: Path, bucket: str
) -> None:
    """Plain, gzip, Zstandard and Parquet, in a folder and on s3: all conversations, once."""
    kind = "parquet" if name.endswith("parquet") else "jsonl"
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / name).write_bytes(data)
    with fsspec.open(f"{bucket}/chat/{name}", "wb") as out:
        out.write(data)
    for number, path in enumerate((str(tmp_path / "files"), f"{bucket}/chat")):
        _, counts = prepare(tmp_path, config(path, kind), f"run{number}")
        assert (counts.taken["conversations"], counts.funnel) == (400, [])
        assert len(said(tmp_path, "train", f"run{number}")) == 400


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("a.jsonl.gz", lambda data: data[: len(data) // 2], "cut"),
        ("a.jsonl.zst", lambda data: data[: len(data) // 2], "cut or damaged"),
        ("a.jsonl.gz", lambda _: LINES, "not gzip"),
        ("a.parquet", lambda data: data[: len(data) // 2], "not a whole Parquet file"),
        ("a.parquet", lambda _: LINES, "not a whole Parquet file"),
    ],
)
def test_damaged_files_fail_by_name(name: str, damage: Callable[[bytes], bytes], words: str, tmp_path: Path) -> None:
    """A cut or wrong file ends the stage with its name and the reason; it is never taken for a shorter one."""
    good = {"a.jsonl.gz": PACKED, "a.jsonl.zst": zstd(LINES), "a.parquet": table()}[name]
    (tmp_path / name).write_bytes(damage(good))
    with pytest.raises(InputError, match=rf"{name}.*{words}"):
        prepare(tmp_path, config(str(tmp_path), "parquet" if name.endswith("parquet") else "jsonl"))


def test_a_file_that_changed_after_it_was_listed_is_named(tmp_path: Path) -> None:
    """A file cut at a line's end since its listing is an error, not fewer conversations."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.jsonl").write_bytes(LINES)
    given = config(str(tmp_path / "files"))
    listed, _ = resolve(given.sources[0], tmp_path / "home")
    (tmp_path / "files" / "a.jsonl").write_bytes(b"\n".join(LINES.split(b"\n")[:100]))
    with pytest.raises(InputError, match=r"a\.jsonl: .* when it was listed"):
        dialogues(given.against(DecontaminateConfig()), [listed], Place(str(tmp_path / "run"), tmp_path / "scratch"))


def test_bytes_that_are_no_text_cost_their_row_alone(tmp_path: Path) -> None:
    """A Parquet row and a JSON line with bytes that are not UTF-8 are counted; the records beside them stay."""
    column = pa.Array.from_buffers(pa.string(), 2, pa.array([b"fine", b"\xff\xfe"], pa.binary()).buffers())
    (tmp_path / "x.parquet").write_bytes(table(column))
    _, counts = prepare(tmp_path, config(str(tmp_path), "parquet"), "table")
    assert [(row["reason"], row["documents"]) for row in counts.funnel] == [("content is not UTF-8", 1)]
    assert said(tmp_path, "train", "table") == [["fine", "a"]]
    (tmp_path / "x.jsonl").write_bytes(
        b'{"prompt": "\xff", "completion": "a"}\n{"prompt": "fine", "completion": "b"}\n'
    )
    _, counts = prepare(tmp_path, config(str(tmp_path)), "lines")
    assert [(row["reason"], row["documents"]) for row in counts.funnel] == [("not JSON", 1)]
    assert said(tmp_path, "train", "lines") == [["fine", "b"]]
