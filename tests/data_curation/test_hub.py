"""Guarantees of Hugging Face datasets as sources, on local folders that `datasets` loads as it loads repositories."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from data_curation.settings import ConfigError, InputError, TransientError
from data_curation.sources import hub
from data_curation.sources.listing import is_fetched, resolve
from data_curation.sources.source import Source
from tests.data_curation.places import rows
from tests.data_curation.test_bad_input import run
from tests.data_curation.web_server import serving

CARD = """---
configs:
- config_name: small
  data_files: [{split: train, path: "small/*.jsonl"}, {split: test, path: "other.jsonl"}]
- config_name: large
  data_files: [{split: train, path: "large.jsonl"}]
---
"""
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A dataset with two configurations; the split `train` of `small` lies in three files of four rows."""
    home = tmp_path / "repository"
    (home / "small").mkdir(parents=True)
    (home / "README.md").write_text(CARD)
    for number in range(3):
        write(home / "small" / f"{number}.jsonl", [row(number * 4 + item) for item in range(4)])
    write(home / "other.jsonl", [row(100)])
    write(home / "large.jsonl", [row(200)])
    return home


def row(number: int) -> dict[str, Any]:
    """A row with a text, where it is from, and a field that nobody asked for."""
    return {"body": f"text {number}", "meta": {"url": f"https://a.example/{number}"}, "date": "2020", "extra": [1]}


def write(path: Path, given: list[dict[str, Any]]) -> None:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(one) + "\n" for one in given))


def source(repository: Path, **settings: Any) -> Source:
    """The dataset as a source."""
    given = {"name": "set", "kind": "hub", "path": str(repository), "config": "small", "text_field": "body"}
    return Source.model_validate(given | {"url_field": "meta.url"} | settings)


def test_split_is_read_shard_by_shard(repository: Path, tmp_path: Path) -> None:
    """Every row of the split comes once, with its fields, whatever the number of tasks; other splits do not."""
    listed, _ = resolve(source(repository), tmp_path)
    assert [file.path for file in listed.part("files").files] == [f"small/train/0000{n}-of-00003" for n in range(3)]
    made, _ = run(source(repository), listed, tmp_path / "home")
    assert len(made.part("documents").files) == 3
    assert [(found["text"], found["url"], found["date"]) for found in rows(made)] == [
        (f"text {number}", f"https://a.example/{number}", "2020") for number in range(12)
    ]
    for settings, texts in (({"split": "test"}, ["text 100"]), ({"config": "large"}, ["text 200"])):
        other = source(repository, **settings)
        made, _ = run(other, resolve(other, tmp_path)[0], tmp_path / texts[0])
        assert [found["text"] for found in rows(made)] == texts


def test_contents_are_its_identity(repository: Path, tmp_path: Path) -> None:
    """Equal data in another folder have one digest; a changed row, another split or configuration give others."""
    first, _ = resolve(source(repository), tmp_path)
    moved = repository.rename(tmp_path / "moved")
    assert resolve(source(moved), tmp_path)[0].part("files") == first.part("files")
    seen = {first.part("files").digest}
    for settings in ({"split": "test"}, {"config": "large"}):
        seen.add(resolve(source(moved, **settings), tmp_path)[0].part("files").digest)
    write(moved / "small" / "1.jsonl", [row(5)])
    assert not is_fetched(source(moved), tmp_path)
    seen.add(resolve(source(moved), tmp_path)[0].part("files").digest)
    assert len(seen) == 4


def test_commit_is_pinned_by_the_listing(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a commit in the settings nothing is asked twice, and what is read is that commit, whatever `main` is now."""
    asked: list[tuple[str, str]] = []

    def load(given: Source, commit: str) -> Any:
        asked.append((given.path, commit))
        return real(source(repository), commit)

    real = hub._load
    monkeypatch.setattr(hub, "_load", load)
    pinned = source(repository, path="org/set", revision=COMMIT)
    listed, _ = resolve(pinned, tmp_path)
    assert is_fetched(pinned, tmp_path)
    assert listed.home == f"hub://org/set@{COMMIT}"
    assert len(rows(run(pinned, listed, tmp_path / "home")[0])) == 12
    assert set(asked) == {("org/set", COMMIT)}
    assert not is_fetched(source(repository, path="org/set", revision="main"), tmp_path)


def test_branch_is_resolved_to_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is asked for a branch's commit; an unknown one is an error of the settings, no answer a transient one."""
    with serving() as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.address.rstrip("/"))
        server.files["api/datasets/org/set/revision/next"] = json.dumps({"id": "org/set", "sha": COMMIT}).encode()
        assert hub._commit(Source(name="a", kind="hub", path="org/set", revision="next")) == COMMIT
        with pytest.raises(ConfigError, match="correct path or revision"):
            hub._commit(Source(name="a", kind="hub", path="org/set", revision="none"))
    with pytest.raises(TransientError, match="hub://org/set: ConnectError"):
        hub._commit(Source(name="a", kind="hub", path="org/set", revision="next"))


def test_wrong_split_and_field_are_named(repository: Path, tmp_path: Path) -> None:
    """A split or a field that is not there is an error that names it and those that are."""
    with pytest.raises(InputError, match="validation"):
        resolve(source(repository, split="validation"), tmp_path)
    listed, _ = resolve(source(repository), tmp_path)
    with pytest.raises(InputError, match="no field 'text', it has body, meta, date, extra; name one in text_field"):
        run(source(repository, text_field="text"), listed, tmp_path / "home")


def test_shard_that_changes_is_left_out_by_name(repository: Path, tmp_path: Path) -> None:
    """A shard that cannot be read to its end gives nothing; the others come."""
    write(repository / "small" / "1.jsonl", [row(4), row(5)])
    listed, _ = resolve(source(repository), tmp_path)
    (repository / "small" / "1.jsonl").write_text(json.dumps(row(4)) + '\n{"body": "x')
    made, counts = run(source(repository), listed, tmp_path / "home", max_bad_files=1)
    assert [found["text"] for found in rows(made)] == [f"text {number}" for number in (0, 1, 2, 3, 8, 9, 10, 11)]
    assert "small/train/00001-of-00003" in counts.warnings[0]
