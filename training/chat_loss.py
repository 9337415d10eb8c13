"""Loss on what the assistant says in held-out conversations, with its standard error."""

import math
from collections.abc import Sequence
from typing import Any

from training import measures


def heldout_losses(model: Any, tokenizer: Any, conversations: Sequence[Any], batch: int = 16) -> list[list[float]]:
    """For each conversation [nats summed over the assistant's tokens, their number]."""
    import torch
    from torch.nn.functional import cross_entropy

    from training.chat import encode_all

    encoded = encode_all(tokenizer, conversations)
    found: list[list[float]] = [[] for _ in encoded]
    for share in measures.by_length([ids for ids, _ in encoded], batch):
        width = len(encoded[share[0]][0])
        tokens = torch.full((len(share), width), tokenizer.pad_token_id)
        wanted = torch.full((len(share), width), -100)
        for row, index in enumerate(share):
            ids, mask = encoded[index]
            tokens[row, : len(ids)] = torch.tensor(ids)
            wanted[row, : len(ids)] = torch.tensor(labels(ids, mask))
        # Padding stands on the right of causal attention: no real token sees it.
        with torch.inference_mode():
            logits = model(input_ids=tokens.to(model.device), use_cache=False).logits[:, :-1].float()
        nats = cross_entropy(logits.transpose(1, 2), wanted[:, 1:].to(model.device), reduction="none").sum(1)
        counted = (wanted[:, 1:] != -100).sum(1)
        for index, value, number in zip(share, nats.tolist(), counted.tolist(), strict=True):
            found[index] = [value, number]
    return found


def per_token(losses: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Nats per assistant token over all conversations; the standard error is that of a ratio of means."""
    tokens = sum(number for _, number in losses)
    if not tokens:
        return measures.mean([])
    value, n = sum(nats for nats, _ in losses) / tokens, len(losses)
    spread = sum((nats - value * number) ** 2 for nats, number in losses)
    error = math.sqrt(spread * n / (n - 1)) / tokens if n > 1 else None
    return {"value": value, "n": n, "standard_error": error}


def labels(ids: Sequence[int], mask: Sequence[int]) -> list[int]:
    """The tokens where the assistant speaks, -100 elsewhere."""
    return [token if on else -100 for token, on in zip(ids, mask, strict=True)]
