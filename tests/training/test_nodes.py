"""Guarantees of several nodes, here on one machine: the curve of one rank; none goes on alone."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from data_curation.artifact import Artifact
from data_curation.place import Place
from data_curation.settings import ConfigError, TransientError
from tests.training.phases import CURVES, config, losses
from tests.training.test_kills import ranks, run, when_saved
from training.pretrain import pretrain

NODES: dict[str, Any] = {
    "nodes": 2, "ranks": 2, "launcher": f"{sys.executable} -m tests.training.everywhere {{nodes}}"
}  # fmt: skip


def test_two_nodes_give_the_curve_of_one_rank(
    shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place]
) -> None:
    """They meet by themselves, each has a copy of the weights, and what they shared beside the output is gone."""
    place = new_place("nodes", **NODES)
    pretrain(config().run_of(0), shards, tokenizer, None, place)
    assert losses(place) == pytest.approx(CURVES["llama"], rel=2e-5)
    assert [path.name for path in Path(place.home, "work").rglob("*") if path.is_file()] == ["model.json"]


def test_a_node_that_dies_ends_the_other(
    shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place]
) -> None:
    """The error can be tried again, no process is left, and the next attempt goes on to the curve of one rank."""
    one, place = new_place("one"), new_place("nodes", checkpoint_seconds=0, **NODES)
    pretrain(run(), shards, tokenizer, None, one)
    others = set(psutil.Process().children(recursive=True))  # servers of other tests

    def kill_node() -> None:
        rank = ranks()["1"]
        for process in (rank.parent(), rank):
            assert process is not None
            process.kill()

    with (
        when_saved(place, 3, kill_node),
        pytest.raises(TransientError, match="a rank of 2 or a node ended without a word"),
    ):
        pretrain(run(), shards, tokenizer, None, place)
    assert not set(psutil.Process().children(recursive=True)) - others
    pretrain(run(), shards, tokenizer, None, place)
    assert losses(place) == pytest.approx(losses(one), rel=2e-5)


def test_a_launcher_that_is_not_there_is_refused(
    shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place]
) -> None:
    """It is named before anything starts."""
    place = new_place("nodes", **NODES | {"launcher": "no-such-command {nodes}"})
    with pytest.raises(ConfigError, match=r"run\.resources\.launcher is 'no-such-command \{nodes\}': no such command"):
        pretrain(config().run_of(0), shards, tokenizer, None, place)
