"""Rows of `pairs`, as `reward` and `prefer` read them."""

from typing import Any

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.documents import read_rows
from data_curation.settings import InputError

Message = dict[str, str]
Row = dict[str, Any]


def conversation(tokenizer: Any, prompt: list[Message], answer: str) -> list[int]:
    """Token ids of prompt and answer; the last one is the end-of-turn token, once."""
    from training.chat import encode

    return encode(tokenizer, [*prompt, {"role": "assistant", "content": answer}])[0]


def pair_rows(pairs: Artifact, part: str) -> list[Row]:
    """All rows of one part of the pairs."""
    rows = [row for uri in pairs.uris(part, ".parquet") for row in read_rows(uri)]
    if part == "train" and not rows:
        raise InputError(f"{pairs.name}: part train holds no pairs")
    return rows


def too_long(pairs: int, step: str = "train") -> Counts:
    """The count of pairs that are left out for their length."""
    row = {"step": step, "reason": "longer than max_length", "documents": pairs, "bytes": 0}
    return Counts(funnel=[row] if pairs else [])


def not_longer(rows: list[Row], tokenizer: Any, max_length: int, counts: Counts) -> list[Row]:
    """The held-out pairs whose longer side, its prompt before it, has at most `max_length` tokens; others counted."""
    sides = [[conversation(tokenizer, row["prompt"], row[side]) for side in ("chosen", "rejected")] for row in rows]
    kept = [row for row, ids in zip(rows, sides, strict=True) if max(map(len, ids)) <= max_length]
    counts.add(too_long(len(rows) - len(kept), "held-out"))
    return kept
