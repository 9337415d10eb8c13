"""Guarantees of a decoder's numbers: depth or size alone give a known shape; contradictions are named."""

import pytest
from pydantic import ValidationError

from training.architecture import ModelConfig, Rope


def test_depth_alone_gives_the_published_shape() -> None:
    """nanochat's d20: 1,280 wide, 10 heads of 128, 438M matmul parameters at a vocabulary of 32k."""
    d20 = ModelConfig(depth=20)
    assert (d20.layers, d20.hidden_size, d20.heads, d20.kv_heads, d20.head_width) == (20, 1280, 10, 10, 128)
    assert d20.flops_per_token(0, 32768) / 6 == pytest.approx(438e6, rel=2e-3)
    assert d20.identity() == ModelConfig().identity()


@pytest.mark.parametrize("parameters", [1e6, 3e7, "500e6", 1e9, 8e9])
def test_a_number_of_parameters_is_met(parameters: float) -> None:
    """Within a tenth, by the shape that is built, at an aspect between 50 and 80."""
    model = ModelConfig(parameters=parameters)
    assert model.flops_per_token(0, 0) / 6 == pytest.approx(float(parameters), rel=0.1)
    assert 50 <= model.hidden_size / model.layers <= 80
    assert model.heads % model.kv_heads == 0 and (model.hidden_size < 2048) == (model.heads == model.kv_heads)


def test_what_is_said_counts_more_than_what_follows() -> None:
    """A width beside the depth is taken as it is; what was resolved once is read again unchanged."""
    given = ModelConfig(depth=12, intermediate_size=1000)
    assert (given.layers, given.intermediate_size) == (12, 1000)
    assert ModelConfig.model_validate(given.model_dump()) == given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"depth": 12, "parameters": 1e9}, r"pretrain.model has depth \(12\) and parameters \(1e\+09\): give one"),
        ({"depth": -1}, "greater than or equal to 1"),
        ({"depth": "deep"}, "valid integer"),
        ({"parameters": "many"}, "valid number"),
        ({"depth": 12, "heads": 5}, r"hidden_size \(768\) must be divisible by heads \(5\)"),
    ],
)
def test_contradictions_are_named(given: dict[str, object], message: str) -> None:
    """Both numbers stand in the error."""
    with pytest.raises(ValidationError, match=message):
        ModelConfig.model_validate(given)


def test_positions_are_said_in_the_words_of_transformers() -> None:
    """Plain ones, and those that YaRN stretches."""
    assert Rope(theta=5e5).parameters() == {"rope_type": "default", "rope_theta": 5e5}
    assert Rope(theta=5e5, factor=4, original=8192).parameters() == {
        "rope_type": "yarn", "rope_theta": 5e5, "factor": 4, "original_max_position_embeddings": 8192,
    }  # fmt: skip
