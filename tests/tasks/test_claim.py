"""Claims: who is waited for, who is taken over, and what of earlier attempts may be adopted."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from data_curation.artifact import Part
from data_curation.counts import Counts
from data_curation.files import write_bytes
from data_curation.place import Place
from tasks import claim as claims
from tasks.artifact import Manifest, machine
from tasks.claim import Claim, hold
from tasks.lease import STALE_SECONDS, Lease
from tasks.store import Found, Store


class Waited(Exception):  # noqa: N818
    """Raised by a test's `say`, so that a wait ends at once."""


def refuse_to_wait(text: str) -> None:
    """End a wait by raising what would have been said."""
    raise Waited(text)


def plant(store: Store, lease: Lease, attempt: int = 1) -> str:
    """An unfinished attempt of word/key, held by `lease`."""
    write_bytes(store.uri("word", "key", str(attempt), "lease.json"), json.dumps(asdict(lease)).encode())
    return store.uri("word", "key", str(attempt))


def dead(run: str = "other-run", code: str = "") -> Lease:
    """The lease of a process of this host that is no more."""
    return replace(Lease.new(run, code), pid=2**22 + 1)


def parent() -> Lease:
    """The lease of a living process of this host, which is not this one."""
    process = psutil.Process(os.getppid())
    return replace(Lease.new("other-run"), pid=process.pid, started=process.create_time())


def held(store: Store, fresh: bool = False, any_code: bool = False, code: str = "") -> Claim:
    """Hold word/key for the run `run` and give it up again."""
    found = hold(store, "word", "key", Lease.new("run", code), refuse_to_wait, fresh=fresh, any_code=any_code)
    assert isinstance(found, Claim)
    found.release()
    return found


def test_live_holder_is_waited_for(tmp_path: Path):
    """An attempt that a living process of this host holds is waited for, and its run and pid are said."""
    store = Store(str(tmp_path))
    plant(store, parent())
    with pytest.raises(Waited, match=rf"run other-run, pid {os.getppid()}"):
        held(store)


@pytest.mark.parametrize("change", [{"pid": 2**22 + 1}, {"started": 1.0}])
def test_dead_holder_is_taken_over(tmp_path: Path, change: dict[str, float]):
    """A dead process, or another that was given its pid, holds nothing: the next attempt starts at once."""
    store = Store(str(tmp_path))
    home = plant(store, replace(parent(), **change))
    claim = held(store)
    assert (claim.attempt, claim.earlier) == (2, [home])


def test_other_host_is_believed_while_its_heart_beats(tmp_path: Path):
    """A lease of another host counts until its beat is 90 s old by the store's clock."""
    store = Store(str(tmp_path))
    home = plant(store, replace(parent(), host="elsewhere"))
    with pytest.raises(Waited, match="on elsewhere"):
        held(store)
    beat = Path(home, "beat")
    beat.touch()
    old = beat.stat().st_mtime - STALE_SECONDS - 1
    os.utime(Path(home, "lease.json"), (old, old))
    with pytest.raises(Waited):
        held(store)
    os.utime(beat, (old, old))
    assert held(store).attempt == 2


def test_a_retry_does_not_wait_for_itself(tmp_path: Path):
    """A claim that this process lost by an error, its lease still there, is taken over by its own next try."""
    store = Store(str(tmp_path))
    plant(store, Lease.new("run"))
    assert held(store).attempt == 2


def test_refresh_adopts_only_its_own(tmp_path: Path):
    """A refresh ignores what another run left unfinished, and its own retry goes on with its own pieces."""
    store = Store(str(tmp_path))
    plant(store, dead())
    first = held(store, fresh=True)
    second = held(store, fresh=True)
    assert (first.earlier, second.earlier) == ([], [first.home])


def test_two_kills_in_a_row_lose_nothing(tmp_path: Path):
    """What attempt 1 completed is adopted by attempt 3 when attempt 2 ended before it could; the newest comes first."""
    store = Store(str(tmp_path))
    homes = [plant(store, dead(), attempt) for attempt in (1, 2)]
    for home, names in zip(homes, (["a", "b"], ["b"]), strict=True):
        for name in names:
            with Place(home, tmp_path).piece(name) as piece:
                piece.send_json("part", f"{name}.json", home)
    claim = held(store)
    assert claim.earlier == homes[::-1]
    place = Place(claim.home, tmp_path)
    assert [place.adopt(home) for home in claim.earlier] == [["b"], ["a"]]
    assert json.loads(Path(claim.home, "part", "b.json").read_text()) == homes[1]


def test_pieces_of_other_code_are_left_alone(tmp_path: Path):
    """What another version of the stage's file made is named and not adopted, unless somebody says that it is right."""
    store = Store(str(tmp_path))
    home = plant(store, dead(code="old"))
    claim = held(store, code="new")
    assert (claim.earlier, claim.other_code) == ([], [1])
    assert held(store, code="new", any_code=True).earlier[-1] == home


def test_what_is_published_meanwhile_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A holder that publishes and ends between a waiter's look and its claim is believed: nothing is made twice."""
    store = Store(str(tmp_path))
    home = plant(store, dead())
    listing: Callable[[str], dict[str, int]] = claims.listing

    def publish_then(uri: str) -> dict[str, int]:
        seen = listing(uri)
        manifest = Manifest(
            **{"word": "word", "key": "key", "attempt": 1, "version": 1, "config": {}, "inputs": {}, "sources": {}},
            **{"parts": {"part": Part(())}, "records": [], "counts": Counts(), "seconds": 0.0, "peak_memory": 0},
            **{"code": "", "commit": "", "packages": {}, "machine": machine(), "made": "", "run": ""},
        )
        write_bytes(f"{home}/manifest.json", manifest.to_json())
        return seen

    monkeypatch.setattr(claims, "listing", publish_then)
    found = hold(store, "word", "key", Lease.new("run"), refuse_to_wait)
    assert isinstance(found, Found) and found.home == home
