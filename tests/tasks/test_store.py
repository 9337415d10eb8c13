"""The store: exclusive claims, leases, damage, formats, runs and care, on disk and on s3."""

import json
import os
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from data_curation.files import create_exclusively, listing, read_bytes, write_bytes
from data_curation.settings import ConfigError, InputError
from tasks.care import prune_store, verify_store
from tasks.lease import STALE_SECONDS, Lease
from tasks.store import Claim, Store
from tests.tasks.conftest import Road


class Waited(Exception):  # noqa: N818
    """Raised by a test's `say`, so that a wait ends at once."""


def refuse_to_wait(text: str) -> None:
    """End a wait by raising what would have been said."""
    raise Waited(text)


def plant(store: Store, lease: Lease) -> str:
    """An unfinished attempt 1 of word/key, held by `lease`."""
    write_bytes(store.uri("word", "key", "1", "lease.json"), json.dumps(asdict(lease)).encode())
    return store.uri("word", "key", "1")


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


def test_live_holder_is_waited_for(tmp_path: Path):
    """An attempt that a living process of this host holds is waited for, and its run and pid are said."""
    store = Store(str(tmp_path))
    plant(store, Lease.mine("other-run"))
    with pytest.raises(Waited, match=rf"run other-run, pid {os.getpid()}"):
        store.claim("word", "key", "run", False, refuse_to_wait)


@pytest.mark.parametrize("change", [{"pid": 2**22 + 1}, {"started": 1.0}])
def test_dead_holder_is_taken_over(tmp_path: Path, change: dict[str, float]):
    """A dead process, or another that was given its pid, holds nothing: the next attempt starts at once."""
    store = Store(str(tmp_path))
    home = plant(store, replace(Lease.mine("other-run"), **change))
    claim = store.claim("word", "key", "run", False, refuse_to_wait)
    assert isinstance(claim, Claim)
    claim.release()
    assert (claim.attempt, claim.earlier) == (2, home)


def test_other_host_is_believed_while_its_heart_beats(tmp_path: Path):
    """A lease of another host counts until its beat is 90 s old by the store's clock."""
    store = Store(str(tmp_path))
    home = plant(store, replace(Lease.mine("other-run"), host="elsewhere"))
    with pytest.raises(Waited, match="on elsewhere"):
        store.claim("word", "key", "run", False, refuse_to_wait)
    beat = Path(home, "beat")
    beat.touch()
    old = beat.stat().st_mtime - STALE_SECONDS - 1
    os.utime(Path(home, "lease.json"), (old, old))
    with pytest.raises(Waited):
        store.claim("word", "key", "run", False, refuse_to_wait)
    os.utime(beat, (old, old))
    claim = store.claim("word", "key", "run", False, refuse_to_wait)
    assert isinstance(claim, Claim)
    claim.release()


def test_refresh_adopts_only_its_own(tmp_path: Path):
    """A refresh ignores what another run left unfinished, and its own retry goes on with its own pieces."""
    store = Store(str(tmp_path))
    plant(store, replace(Lease.mine("other-run"), pid=2**22 + 1))
    first = store.claim("word", "key", "run", True, refuse_to_wait)
    assert isinstance(first, Claim)
    first.release()
    second = store.claim("word", "key", "run", True, refuse_to_wait)
    assert isinstance(second, Claim)
    second.release()
    assert (first.earlier, second.earlier) == (None, first.home)


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


def test_prune_keeps_what_runs_reach(road: Road):
    """Prune names and removes attempts that no kept run used, and nothing else; dry by default."""
    from tests.tasks.toys import SeedConfig

    old = road(SeedConfig(numbers=[9]))
    new = road()
    store = new.store
    would = prune_store(store, keep=1, apply=False)
    assert {entry["uri"] for entry in would} == {record.uri for record in old.stages}
    assert verify_store(store, deep=True) == []
    prune_store(store, keep=1, apply=True)
    assert not any(Path(record.uri).exists() for record in old.stages)
    assert [record.state for record in road().stages] == ["cached", "cached"]
