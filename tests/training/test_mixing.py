"""Mixes: shares that sum to one, wrong ones named, epochs of each source by hand."""

from typing import Any

import pytest
from pydantic import ValidationError

from data_curation.settings import ConfigError
from training.mixing import MixConfig, epochs, shares, too_often

POOLS = {("web", 8): 600, ("web", 12): 200, ("books", 13): 200, ("code", 5): 1000}
"""Tokens by source and power of two of the length."""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, [0.3, 0.1, 0.1, 0.5]),
        ({"sources": {"web": 2, "books": 2}}, [0.375, 0.125, 0.5, 0]),
        ({"long_share": 0.5}, [0.1875, 0.25, 0.25, 0.3125]),
        ({"long_share": 0.5, "long_tokens": 8192}, [1 / 6, 1 / 18, 0.5, 5 / 18]),
        ({"long_share": 0.5, "long_tokens": 16384}, [0.3, 0.1, 0.1, 0.5]),
        ({"sources": {"web": 3, "books": 1}, "long_share": 0.5}, [0.5, 0.375, 0.125, 0]),
        ({"sources": {"web": 1}, "long_share": 1.0}, [0, 1, 0, 0]),
    ],
)
def test_shares_by_hand(given: dict[str, Any], expected: list[float]) -> None:
    """By tokens, by weights, with long documents preferred where there are both kinds."""
    found = shares(MixConfig(**given), 4096, POOLS)
    assert list(found) == list(POOLS)
    assert list(found.values()) == pytest.approx(expected)


def test_epochs_by_hand() -> None:
    """Of each source those documents count that are read most often."""
    read = [(2000.0, shares(mix, 4096, POOLS)) for mix in (MixConfig(), MixConfig(long_share=0.5))]
    assert epochs(read, POOLS) == pytest.approx({"web": 3.5, "books": 3.5, "code": 1.625})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sources": {"web": -1}}, "weights are 0 or more"),
        ({"sources": {"web": 0}}, "give one source a weight above 0"),
        ({"long_tokens": 1000, "long_share": 0.5}, "mix.long_tokens is 1000: give a power of two"),
        ({"long_tokens": 1024}, "mix.long_share is not given"),
        ({"long_share": 1.5}, "less than or equal to 1"),
    ],
)
def test_wrong_mixes_are_refused(given: dict[str, Any], words: str) -> None:
    """Each mistake is named with its value."""
    with pytest.raises(ValidationError, match=words):
        MixConfig(**given)


def test_an_unknown_source_is_named() -> None:
    """With those that the shards hold."""
    with pytest.raises(ConfigError, match=r"no source 'wep' in the shards, which hold books, code, web"):
        shares(MixConfig(sources={"wep": 1}), 4096, POOLS)


def test_repeats_are_warned_of_or_refused() -> None:
    """Above four times a warning names source and number; above `max_epochs` the phase does not begin."""
    read = {"web": 2.0, "books": 5.25}
    (warning,) = too_often("pretrain-8k", read, None)
    assert "'books' are read 5.2 times" in warning
    with pytest.raises(ConfigError, match=r"pretrain.max_epochs is 3, but pretrain-8k would read .* 'books' 5.2 times"):
        too_often("pretrain-8k", read, 3)
