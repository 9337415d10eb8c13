"""A store that looks ahead says what the store says, of what it looked up and of all else."""

from pathlib import Path

import pytest

from data_curation.settings import InputError
from tasks.ahead import Ahead
from tests.tasks.conftest import Road
from tests.tasks.toys import SeedConfig


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_it_finds_what_the_store_finds(where: str, road: Road, request: pytest.FixtureRequest):
    """Artifacts that are there, that were never made and that are not among those looked up."""
    options = {} if where == "disk" else {"store": request.getfixturevalue("bucket")}
    run, other = road(**options), road(SeedConfig(numbers=[9]), **options)
    never = {"stage": "seed", "key": "f" * 64}
    ahead = Ahead(run.store.root, [*(record.public() for record in run.stages), never])
    for record in (*run.stages, *other.stages):
        assert ahead.find(record.stage, record.key) == run.store.find(record.stage, record.key)
        assert ahead.manifest(record.stage, record.key, 1) == run.store.manifest(record.stage, record.key, 1)
    assert ahead.find("seed", never["key"]).manifest is None


def test_an_older_attempt_is_read_itself(road: Road):
    """A run may have used an attempt that is no longer the current one."""
    first = road()
    road(refresh=frozenset({"seed"}))
    record = first.stages[0]
    ahead = Ahead(first.store.root, [record.public()])
    assert ahead.find("seed", record.key).home.endswith("/2")
    assert [ahead.manifest("seed", record.key, attempt).attempt for attempt in (1, 2)] == [1, 2]


def test_only_who_asks_meets_an_error(road: Road):
    """What an old run used may be of another format: that is no matter for a plan that does not ask for it."""
    run = road()
    record = run.stages[0]
    path = Path(record.uri, "manifest.json")
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    ahead = Ahead(run.store.root, [one.public() for one in run.stages])
    assert ahead.find("sort", run.stages[1].key).whole
    with pytest.raises(InputError, match="format 2"):
        ahead.find("seed", record.key)
