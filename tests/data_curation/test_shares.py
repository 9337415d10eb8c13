"""Guarantees of sampling: fractions, weights and limits that follow from records and listings alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_curation.artifact import Artifact, Part
from data_curation.extract import ExtractConfig, extract
from data_curation.files import File
from data_curation.settings import ConfigError
from data_curation.sources.listing import resolve
from data_curation.sources.shares import fractions, tasks
from data_curation.sources.source import Source
from tests.data_curation.places import artifact, place, rows


def given(name: str = "a", **settings: Any) -> Source:
    """A source of JSONL files."""
    return Source.model_validate({"name": name, "kind": "jsonl", "path": "/in"} | settings)


def listed(*sizes: int) -> Artifact:
    """A listing of files of these sizes."""
    files = tuple(File(f"{number:03d}.jsonl", size, "") for number, size in enumerate(sizes))
    return Artifact("a", "/in", {"files": Part(files)})


def write(folder: Path, counts: list[int]) -> None:
    """JSONL files with so many rows each."""
    folder.mkdir()
    for number, count in enumerate(counts):
        texts = [json.dumps({"text": f"text {number} {item} " + "x" * 50}) + "\n" for item in range(count)]
        (folder / f"{number}.jsonl").write_text("".join(texts))


def taken(folder: Path, home: Path, workers: int = 1, bytes_per_task: int = 1 << 20, **settings: Any) -> list[str]:
    """Texts that come out of a folder; with the drops, every record is decided on."""
    source = given(path=str(folder), **settings)
    found, _ = resolve(source, home / "sources")
    where = place(home / "made", home / "scratch", workers=workers)
    counts = extract(ExtractConfig(sources=[source], bytes_per_task=bytes_per_task), [found], where)
    texts = [row["text"] for row in rows(artifact(where))]
    dropped = {(row["step"], row["reason"]): row["documents"] for row in counts.funnel}
    assert counts.taken["documents"] == len(texts) + dropped.get(("sample", "not-drawn"), 0)
    return texts


def test_fraction_takes_its_share_whoever_works(tmp_path: Path) -> None:
    """.3 of 2,000 records is 600 within four standard errors, the same from any tasks, and a part of those of .5."""
    write(tmp_path / "in", [700, 300, 1000])
    whole = taken(tmp_path / "in", tmp_path / "1", fraction=0.3)
    assert abs(len(whole) - 600) < 4 * (2000 * 0.3 * 0.7) ** 0.5
    assert taken(tmp_path / "in", tmp_path / "2", workers=2, bytes_per_task=1, fraction=0.3) == whole
    assert set(whole) < set(taken(tmp_path / "in", tmp_path / "3", fraction=0.5))


def test_limit_takes_the_first_of_every_file_by_its_bytes(tmp_path: Path) -> None:
    """60 of 2,000 records are 21, 9 and 30 of the files' first, the same from any tasks."""
    write(tmp_path / "in", [700, 300, 1000])
    texts = taken(tmp_path / "in", tmp_path / "1", limit=60)
    counts = [sum(text.startswith(f"text {number} ") for text in texts) for number in range(3)]
    assert sum(counts) == 60
    assert all(abs(count - share) <= 1 for count, share in zip(counts, (21, 9, 30), strict=True))
    assert texts[0].startswith("text 0 0 ")
    assert taken(tmp_path / "in", tmp_path / "2", workers=2, bytes_per_task=1, limit=60) == texts
    assert len(taken(tmp_path / "in", tmp_path / "3", limit=60, fraction=0.5)) == 60
    assert len(taken(tmp_path / "in", tmp_path / "4", limit=5000)) == 2000


def test_limit_below_the_number_of_files_opens_few() -> None:
    """Two records of a hundred equal files come from two files; a large file is drawn before small ones."""
    shares = tasks([given(limit=2)], [listed(*[10] * 100)], 1 << 20)
    assert [file.most for share in shares for file in share.files] == [1, 1]
    shares = tasks([given(limit=1)], [listed(1, 1, 10**9)], 1 << 40)
    assert [file.path for share in shares for file in share.files] == ["002.jsonl"]


def test_weights_are_relations_of_bytes() -> None:
    """The source with the fewest bytes for its weight comes whole, the others in proportion; fractions multiply."""
    sources = [given("a", weight=3), given("b", weight=1), given("c", weight=1, fraction=0.5)]
    found = fractions(sources, [listed(300), listed(400), listed(50, 50)])
    assert found == [1.0, 0.25, 0.5]


def test_weights_go_with_all_sources_or_with_none() -> None:
    """A missing weight and a source of unknown size are refused with the source's name."""
    with pytest.raises(ConfigError, match="source 'b' has no weight and others have"):
        fractions([given("a", weight=1), given("b")], [listed(1), listed(1)])
    with pytest.raises(ConfigError, match="source 'b' has a weight and no known size"):
        fractions([given("a", weight=1), given("b", weight=1)], [listed(1), listed(0)])


def test_files_of_a_task_are_of_one_source() -> None:
    """Consecutive files are grouped up to the given bytes; a dataset's shards of unknown size stay alone."""
    shares = tasks([given("a"), given("b"), given("c", kind="hub")], [listed(4, 4, 4), listed(1), listed(0, 0)], 8)
    assert [(share.source, [file.path[2] for file in share.files]) for share in shares] == [
        (0, ["0", "1"]),
        (0, ["2"]),
        (1, ["0"]),
        (2, ["0"]),
        (2, ["1"]),
    ]
