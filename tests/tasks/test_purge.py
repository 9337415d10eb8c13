"""Guarantees of what `takedown --purge` rests on: pieces of a text are known anywhere, living work is left alone."""

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from data_curation.settings import InputError
from tasks.block_lists import standing, write_list
from tasks.care import living_runs, unfinished
from tasks.purge import GONE, Pieces
from tasks.store import Store
from tasks.takedown import read_names
from tests.tasks.conftest import Road

TEXT = "The old heron kept ninety violet ledgers beneath the observatory until Thursday."


def test_pieces_are_known_whatever_is_around_them() -> None:
    """Eight words in a row tell, in other case and punctuation; seven do not; only the string that has them goes."""
    pieces = Pieces([TEXT])
    assert pieces.met("... he said: OLD heron kept - ninety violet, ledgers beneath the end")
    assert not pieces.met("heron kept ninety violet ledgers beneath the end")
    data = {"drops": [{"id": "a", "passage": TEXT, "words": 12}, {"id": "b", "passage": "other"}]}
    assert pieces.without(data) == {
        "drops": [{"id": "a", "passage": GONE, "words": 12}, {"id": "b", "passage": "other"}]
    }


def test_block_lists_stand_in_the_store(tmp_path: Path) -> None:
    """Each takedown adds a list, an equal one none; they are one source for every later run; no list is no source."""
    store = Store(str(tmp_path))
    assert standing(store) is None
    first = write_list(store, ["https://a.example/1"])
    assert write_list(store, ["https://a.example/1"]) == first != write_list(store, ["f" * 32])
    source = standing(store)
    assert source is not None and {path.name for path in Path(source.path).iterdir()} == {"00001.txt", "00002.txt"}
    with pytest.raises(InputError, match=r"urls\.txt: holds no id or URL: write one a line"):
        read_names("# nothing\n\n", "urls.txt")
    assert read_names(f"{'AB' * 16}\nhttps://a.example/1 \n", "urls.txt") == ["ab" * 16, "https://a.example/1"]


def test_what_goes_on_is_known(road: Road) -> None:
    """A run whose process lives goes on, until it says that it has ended; an attempt without manifest is unfinished."""
    run = road()
    assert living_runs(run.store) == [] and unfinished(run.store) == []
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        entry = run.store.read_run(run.id)
        process = entry["process"] | {"pid": other.pid, "started": psutil.Process(other.pid).create_time()}
        data = json.dumps(entry | {"state": "running", "process": process}).encode()
        run.store.write_run(run.id, "run.json", data)
        assert living_runs(run.store) == [run.id]
        other.kill()
    assert living_runs(run.store) == []
    Path(run.stages[1].uri, "manifest.json").unlink()
    assert unfinished(run.store) == [("sort", run.stages[1].key, 1)]
