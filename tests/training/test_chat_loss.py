"""Loss of held-out conversations: the model's own, weighed by tokens."""

import math
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from data_curation.artifact import Artifact
from tests.training.conftest import coins
from tests.training.test_instruct import chats
from training.chat_loss import heldout_losses, labels, per_token


def test_held_out_loss_equals_the_models_own(tiny_model: Artifact) -> None:
    """Summed losses in padded batches equal one conversation at a time through transformers' own loss."""
    import torch
    from transformers import AutoTokenizer

    from training.chat import encode

    folder = Path(tiny_model.home) / "model"
    model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    conversations = [row["messages"] for row in [*chats(3), *coins(0, 4)]]
    found = heldout_losses(model, tokenizer, conversations, batch=3)
    for messages, (nats, number) in zip(conversations, found, strict=True):
        ids, mask = encode(tokenizer, messages)
        with torch.no_grad():
            own = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels(ids, mask)])).loss.item()
        assert number == sum(mask)
        assert nats / number == pytest.approx(own, rel=1e-5)


def test_loss_per_token_weighs_by_tokens() -> None:
    """Ratio of sums, with the standard error of a ratio; none for a single conversation and no value for none."""
    measured = per_token([[2.0, 1], [6.0, 3]])
    assert measured == {"value": 2.0, "n": 2, "standard_error": 0.0}
    spread = per_token([[3.0, 1], [5.0, 3]])
    assert spread["value"] == 2.0
    assert spread["standard_error"] == pytest.approx(math.sqrt(2 * 2 / 1) / 4)
    assert per_token([[1.0, 2]])["standard_error"] is None
    assert per_token([])["value"] is None
