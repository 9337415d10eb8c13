"""Packed rows: several conversations in a row give the logits and the loss that each gives alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from data_curation.artifact import Artifact
from training.packed_rows import collate


def row(*lengths: int, seed: int = 0) -> dict[str, Any]:
    """A packed row of random tokens, the second half of each conversation trained."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, 200, (sum(lengths),), generator=generator).tolist()
    labels: list[int] = []
    for length in lengths:
        part = ids[len(labels) : len(labels) + length]
        labels += [-100] * (length // 2) + part[length // 2 :]
    return {"input_ids": ids, "labels": labels, "seq_lengths": list(lengths)}


def test_the_collator_by_hand() -> None:
    """Positions restart with each conversation and in the padding; a conversation's first token is never a label."""
    one = {"input_ids": [5, 6, 7, 8, 9], "labels": [5, 6, -100, 8, 9], "seq_lengths": [2, 3]}
    two = {"input_ids": [4, 5, 6], "labels": [-100, 5, 6], "seq_lengths": [3]}
    batch = {name: values.tolist() for name, values in collate([one, two]).items()}
    assert batch == {
        "input_ids": [[5, 6, 7, 8, 9], [4, 5, 6, 0, 0]],
        "labels": [[-100, 6, -100, 8, 9], [-100, 5, 6, -100, -100]],
        "position_ids": [[0, 1, 0, 1, 2], [0, 1, 2, 0, 1]],
    }


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_logits_equal_unpacked_ones(tiny_model: Artifact, attention: str) -> None:
    """Every conversation in a batch of packed rows has the logits that it has alone: nothing is seen across borders."""
    model: Any = AutoModelForCausalLM.from_pretrained(
        Path(tiny_model.home) / "model", attn_implementation=attention
    ).eval()
    rows = [row(5, 11, 3), row(8, 4, seed=1)]
    batch = collate(rows)
    with torch.no_grad():
        packed = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
        for index, one in enumerate(rows):
            start = 0
            for length in one["seq_lengths"]:
                alone = model(
                    input_ids=torch.tensor([one["input_ids"][start : start + length]]), use_cache=False
                ).logits
                assert torch.allclose(packed[index, start : start + length], alone[0], atol=2e-6)
                start += length


def test_the_loss_equals_trls_own(tiny_model: Artifact, tmp_path: Path) -> None:
    """The loss of the trained positions, and its gradient, are what SFTTrainer computes over all positions."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from data_curation.place import Place, Resources
    from training.packed_rows import PackedTrainer
    from training.trainers import arguments

    place = Place(str(tmp_path / "x"), tmp_path, Resources(device="cpu", threads=1))
    options = arguments(SFTConfig, place, dataset_kwargs={"skip_prepare_dataset": True}, remove_unused_columns=False)
    rows = [row(5, 11), row(9, seed=2)]
    found: list[tuple[float, torch.Tensor]] = []
    for cls in (PackedTrainer, SFTTrainer):
        model: Any = AutoModelForCausalLM.from_pretrained(Path(tiny_model.home) / "model")
        trainer = cls(
            model=model, args=options, data_collator=collate, train_dataset=Dataset.from_list(rows),
            processing_class=_tokenizer(tiny_model),
        )  # fmt: skip
        loss = trainer.compute_loss(trainer.model, collate(rows), num_items_in_batch=torch.tensor(7))
        loss.backward()
        found.append((loss.item(), model.model.layers[0].mlp.up_proj.weight.grad.clone()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-6)


def _tokenizer(model: Artifact) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(Path(model.home) / "model")
