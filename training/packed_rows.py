"""Packed conversations for TRL's SFTTrainer: a collator for rows of several, and a loss of the trained tokens only."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from trl.trainer.sft_trainer import SFTTrainer


def collate(rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """input_ids, labels and position_ids of [rows, longest row]; positions restart with each conversation.

    There is no attention mask: the positions alone keep conversations apart, and a mask of ones would mix them in
    silence. Padding on the right is one more "conversation" without labels.
    """
    width = max(len(row["input_ids"]) for row in rows)
    batch = {
        "input_ids": torch.zeros((len(rows), width), dtype=torch.long),
        "labels": torch.full((len(rows), width), -100),
        "position_ids": torch.zeros((len(rows), width), dtype=torch.long),
    }
    for index, row in enumerate(rows):
        lengths = row["seq_lengths"]
        padding = [width - sum(lengths)] if sum(lengths) < width else []
        batch["input_ids"][index, : sum(lengths)] = torch.tensor(row["input_ids"])
        batch["labels"][index, : sum(lengths)] = torch.tensor(row["labels"])
        batch["position_ids"][index] = torch.cat([torch.arange(length) for length in [*lengths, *padding]])
    # The token before a conversation belongs to another one: it must not learn to predict this one's first.
    batch["labels"][batch["position_ids"] == 0] = -100
    return batch


class PackedTrainer(SFTTrainer):
    """On GPUs TRL multiplies only trained positions with the vocabulary; on CPUs all of them, unless this is used."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Negative log-likelihood summed over the trained tokens, divided by their number in the whole step."""
        # Several ranks' gradients meet in the call of the model that wraps theirs.
        if inputs["input_ids"].device.type != "cpu" or return_outputs or self.accelerator.num_processes > 1:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if hasattr(model, "get_base_model"):  # adapters lie inside the layers of the model that peft wraps
            model = model.get_base_model()
        hidden = model.base_model(
            input_ids=inputs["input_ids"], position_ids=inputs["position_ids"], use_cache=False
        ).last_hidden_state[:, :-1]
        wanted = inputs["labels"][:, 1:]
        trained = wanted != -100
        logits = model.get_output_embeddings()(hidden[trained])
        total = cross_entropy(logits.float(), wanted[trained], reduction="sum")
        return total / (trained.sum() if num_items_in_batch is None else num_items_in_batch)
