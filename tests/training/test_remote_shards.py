"""Pretraining from shards on s3: the same bytes as from a local folder, and a changed index is noticed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from data_curation.artifact import Artifact
from data_curation.files import copy_file, join, writing
from data_curation.place import Place
from data_curation.settings import InputError
from tests.training.phases import config, digests, published
from training.pretrain import pretrain


def test_shards_on_s3_train_the_same_model(
    shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place], bucket: str
) -> None:
    """Token files are fetched while training; model and state have the bytes of a run beside its shards."""
    for path in (path for path in Path(shards.home).rglob("*") if path.is_file()):
        copy_file(str(path), join(bucket, path.relative_to(shards.home).as_posix()))
    remote = Artifact("shard", bucket, shards.parts, key="shard")
    here, there = new_place("here"), new_place("there")
    pretrain(config().run_of(0), shards, tokenizer, None, here)
    pretrain(config().run_of(0), remote, tokenizer, None, there)
    assert digests(published(here)) == digests(published(there))
    with writing(join(bucket, "shards", "index.json")) as out:
        out.write(b"{}")
    with pytest.raises(InputError, match=r"index\.json: damaged"):
        pretrain(config().run_of(0), remote, tokenizer, None, new_place("again"))
