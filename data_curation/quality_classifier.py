"""Scores of a given Hugging Face sequence classifier, such as FineWeb-Edu's."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from data_curation.quality import QualityConfig, Scorer
from data_curation.settings import ConfigError

BATCH = 16
DIGITS = 4
"""Decimals of a score: what is beyond depends on the texts that are padded together."""


def classifier(config: QualityConfig, device: str) -> Scorer:
    """Scores by the classifier; `device` is `cpu`, `cuda` or `auto`."""
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    tokenizer, model = _load(config.model, config.revision, where)
    outputs = int(model.config.num_labels)
    if not -outputs <= config.label < outputs:
        raise ConfigError(f"clean.quality.label is {config.label}: {config.model} has {outputs} labels; choose one")

    def scores(texts: Sequence[str]) -> list[float]:
        # Texts of like lengths together need little padding.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        found = dict[int, float]()
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            encoded = tokenizer(
                [texts[index][: config.characters] for index in chosen],
                truncation=True,
                max_length=config.max_tokens,
                padding=True,
                return_tensors="pt",
            )
            with torch.inference_mode():
                logits = model(**encoded.to(where)).logits.float()
            values = logits[:, 0] if outputs == 1 else logits.softmax(-1)[:, config.label]
            found.update(zip(chosen, [round(value, DIGITS) for value in values.tolist()], strict=True))
        return [found[index] for index in range(len(texts))]

    return scores


@cache
def _load(name: str, revision: str, device: str) -> tuple[Any, Any]:
    known = {} if Path(name).is_dir() else {"revision": revision}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **known)
        model = AutoModelForSequenceClassification.from_pretrained(name, **known)
    except (OSError, ValueError) as error:
        raise ConfigError(f"clean.quality.model: {name} cannot be loaded ({error}): name a classifier") from error
    return tokenizer, model.to(device).eval()
