"""Guarantees of the needles: found by models that look back far enough, measured as a plain forward pass does."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from data_curation.shards import Document
from tests.training.phases import TINY
from tests.training.test_probes import Copier
from training import model as models
from training.architecture import Rope
from training.needles import DEPTHS, by_length, lengths_of, plant


class Looking:
    """A model that copies what it has seen in its last `reach` tokens; its hidden states are its logits."""

    def __init__(self, context: int, reach: int) -> None:
        self.copier = Copier(300, reach)
        self.device, self.config = torch.device("cpu"), SimpleNamespace(max_position_embeddings=context)

    def model(self, input_ids: Tensor, position_ids: Tensor, use_cache: bool, packing: Any) -> SimpleNamespace:
        """The logits, [rows, tokens, vocabulary]."""
        return SimpleNamespace(
            last_hidden_state=self.copier.hidden(input_ids, position_ids, None).view(*input_ids.shape, -1)
        )

    def lm_head(self, hidden: Tensor) -> Tensor:
        """What it is given."""
        return hidden


def documents() -> Iterator[Document]:
    """Documents of random tokens."""
    draw = np.random.default_rng(3)
    for index in range(8):
        yield Document(f"{index:032x}", "made", "en", 200, draw.integers(20, 270, 200).astype(np.uint16))


@pytest.fixture(scope="module")
def loaded(chat_tokenizer: Path) -> Any:
    """The tiny tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(chat_tokenizer)


def test_lengths_double_up_to_the_context() -> None:
    """The whole context comes last, whether it is a doubling or not, and alone where it is short."""
    assert lengths_of(1024) == [256, 512, 1024]
    assert lengths_of(1000) == [256, 512, 1000]
    assert lengths_of(100) == [100]


def test_a_needle_stands_at_its_depth_and_is_asked_for_at_the_end(loaded: Any) -> None:
    """Every context predicts `length` tokens, holds its number twice, the first time at the depth whose turn it is."""
    for trial, needle in enumerate(plant(list(documents()), loaded, 10, 400)):
        assert len(needle.tokens) == 401
        first, last = (needle.tokens[at.start + 1 : at.stop + 1] for at in (needle.first, needle.last))
        assert np.array_equal(first, last) and needle.last.stop == 400
        assert loaded.decode(first).strip().isdigit() and len(loaded.decode(first).strip()) == 5
        assert needle.first.start == pytest.approx(DEPTHS[trial % 5] * 400, abs=60)
    assert plant(list(documents()), loaded, 10, 20) == []


def test_what_is_found_follows_from_how_far_a_model_looks_back(loaded: Any) -> None:
    """Far sight finds all in every length; 200 tokens of sight find, of five depths, those that near to the end."""
    far, near = (by_length(Looking(512, reach), list(documents()), loaded, 10, 512, 1024) for reach in (512, 200))
    assert far["needle_accuracy/length/256"] == {"value": 1.0, "n": 10, "standard_error": 0.0}
    assert far["needle_accuracy/length/512"]["value"] == 1.0
    assert near["needle_accuracy/length/256"]["value"] == pytest.approx(0.8)  # all but the one 230 tokens away
    assert near["needle_accuracy/length/512"]["value"] == pytest.approx(0.4)
    assert far["needle_gain/length/512"]["value"] > near["needle_gain/length/512"]["value"]


def test_gains_are_those_of_a_plain_forward_pass(loaded: Any) -> None:
    """Batches, packed attention and logits at few places change nothing."""
    strong = TINY.model_copy(update={"initializer_range": 0.3})
    model = models.build(strong, loaded, Rope(theta=1e4), 300, seed=1).eval()
    found = by_length(model, list(documents()), loaded, 5, 300, 700)
    model.set_attn_implementation("eager")
    for length in (256, 300):
        gains: list[float] = []
        for needle in plant(list(documents()), loaded, 5, length):
            with torch.no_grad():
                logits = model(input_ids=torch.from_numpy(needle.tokens[None, :-1])).logits[0].double()
            cost = -logits.log_softmax(-1)[range(length), needle.tokens[1:]].numpy()
            gains.append(cost[needle.first].sum() - cost[needle.last].sum())
        assert found[f"needle_gain/length/{length}"]["value"] == pytest.approx(np.mean(gains), abs=1e-3)
        assert found[f"needle_gain/length/{length}"]["n"] == 5
