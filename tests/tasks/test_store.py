"""The store: exclusive creation, damage, formats, on disk and on s3."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from data_curation.files import create_exclusively, listing, read_bytes, write_bytes
from data_curation.settings import ConfigError, InputError
from tasks.care import verify_store
from tasks.store import Store
from tests.tasks.conftest import Road


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_one_of_many_creates(where: str, tmp_path: Path, request: pytest.FixtureRequest):
    """Of 12 threads that create one file exclusively, one succeeds, and its bytes stand."""
    root = str(tmp_path) if where == "disk" else request.getfixturevalue("bucket")
    wins: list[int] = []
    create: Callable[[int], None] = lambda i: (  # noqa: E731
        wins.append(i) if create_exclusively(f"{root}/claim", str(i).encode()) else None
    )
    threads = [threading.Thread(target=create, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 1
    assert read_bytes(f"{root}/claim") == str(wins[0]).encode()
    assert list(listing(root)) == ["claim"]


@pytest.mark.parametrize("data", [b"", b"x" * 100])
def test_small_files_are_read_as_they_were_written(data: bytes, bucket: str):
    """All bytes of a file on s3, and none of an empty one; a file that is not there is an error of its own kind."""
    write_bytes(f"{bucket}/file", data)
    assert read_bytes(f"{bucket}/file") == data
    with pytest.raises(FileNotFoundError):
        read_bytes(f"{bucket}/other")


def test_a_listing_of_what_is_not_there_is_empty(bucket: str, tmp_path: Path):
    """No folder, no prefix, no bucket: nothing is listed, and a store there has no runs."""
    for uri in (f"{bucket}/none", f"{bucket}-none/prefix", str(tmp_path / "none")):
        assert listing(uri) == {}
        assert Store(uri).runs() == []


def test_a_creation_whose_answer_was_lost_is_told_by_its_bytes(bucket: str):
    """On s3 who meets a file with the very bytes they would write has written it; other bytes are somebody else's."""
    assert create_exclusively(f"{bucket}/claim", b"mine")
    assert create_exclusively(f"{bucket}/claim", b"mine")
    assert not create_exclusively(f"{bucket}/claim", b"yours")
    assert read_bytes(f"{bucket}/claim") == b"mine"


def test_unwritable_store_is_a_configuration_error(tmp_path: Path):
    """A store that cannot be written is refused before anything runs, with its path and the reason."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"run\.store: cannot write to .*file/store \(Not a directory\)"):
        Store(str(tmp_path / "file" / "store")).check_writable()


def test_other_format_is_refused(road: Road):
    """A manifest of another format is refused with words, not misread."""
    record = road().stages[0]
    path = Path(record.uri, "manifest.json")
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(InputError, match="format 2, this version reads format 1"):
        road()


def test_a_damaged_manifest_is_damage(road: Road):
    """A manifest that is none is noticed, the stage is made again, and plan says so."""
    record = road().stages[1]
    for number, text in enumerate(("", "[]", '{"format": 1')):
        Path(record.uri.rsplit("/", 1)[0], str(number + 1), "manifest.json").write_text(text)
        planned = road(mode="plan").stages[1]
        assert (planned.state, planned.why) == ("run", "its manifest.json is damaged")
        made = road().stages[1]
        assert (made.state, made.attempt, made.digest) == ("made", number + 2, record.digest)


def test_s3_and_disk_agree(road: Road, bucket: str):
    """Keys and digests on s3 equal those on disk; the second run is cached; a deleted object is noticed."""
    disk, first, second = road(), road(store=bucket), road(store=bucket)
    identity = [(record.key, record.digest) for record in disk.stages]
    assert [(record.key, record.digest) for record in first.stages] == identity
    assert [record.state for record in second.stages] == ["cached", "cached"]
    from data_curation.files import remove

    remove(f"{first.stages[1].uri}/sorted/first.json")
    third = road(store=bucket)
    assert [record.state for record in third.stages] == ["cached", "made"]
    assert "sorted/first.json is missing" in third.stages[1].why
    assert third.stages[1].digest == disk.stages[1].digest


def test_verify_reads_every_byte(road: Road):
    """`verify` sees sizes, `verify --deep` sees a flipped byte too, each names the file."""
    run = road()
    store = run.store
    assert verify_store(store, deep=True) == []
    path = Path(run.stages[0].uri, "numbers", "numbers.json")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"3", b"4"))
    assert verify_store(store, deep=False) == []
    assert str(path) in verify_store(store, deep=True)[0]
    path.unlink()
    assert str(path) in verify_store(store, deep=False)[0]
