"""Text to token ids: fastokens where it is installed and equal to Hugging Face, else Hugging Face."""

import json
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_curation.settings import InputError

SEPARATOR = "<|endoftext|>"
COMPARED = 1 << 13  # characters of a long text that are compared: Hugging Face takes minutes for 100 MB

Ids = NDArray[np.uint32]


class Encoder:
    """Encodes plain text without ever making a control token of it; `tokenizer` is a folder with tokenizer.json."""

    def __init__(self, folder: Path, fast: bool = True) -> None:
        # One thread each: the stage's workers are processes, and threads on top of them only fight.
        os.environ.setdefault("RAYON_NUM_THREADS", "1")
        from tokenizers import Tokenizer

        path = folder / "tokenizer.json"
        if not path.is_file():
            raise InputError(f"{path}: missing; the tokenizer must be a folder with tokenizer.json (a fast tokenizer)")
        text = path.read_text(encoding="utf-8")
        self.slow: Any = Tokenizer.from_str(text)
        self.slow.no_truncation()
        self.slow.no_padding()
        self.slow.encode_special_tokens = True
        self.fast: Any = _fastokens(text) if fast else None
        self.vocabulary = 1 + max(self.slow.get_vocab(with_added_tokens=True).values())
        self.separator = _separator(self.slow, folder)

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Token ids of each text, without separator."""
        flat, ends = self.flat(texts)
        return [flat[start:end] for start, end in pairwise([0, *ends.tolist()])]

    def flat(self, texts: Sequence[str]) -> tuple[Ids, NDArray[np.int64]]:
        """The ids of all texts, one after the other, and where each text ends."""
        if self.fast is None:
            found = self.reference(texts)
            return np.concatenate([np.zeros(0, np.uint32), *found]), np.cumsum([len(ids) for ids in found])
        ids, offsets = self.fast.encode_batch_flat(list(texts), split_special_tokens=True)
        return np.frombuffer(ids, np.uint32), np.frombuffer(offsets, np.uint64)[1:].astype(np.int64)

    def reference(self, texts: Sequence[str]) -> list[Ids]:
        """The same by Hugging Face `tokenizers`: what every other encoder is held against."""
        encoded = self.slow.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, np.uint32) for encoding in encoded]

    def agrees(self, texts: Sequence[str]) -> bool:
        """Whether both encoders give equal ids for every text, of long ones for the beginning."""
        if self.fast is None:
            return True
        some = [text[:COMPARED] for text in texts]
        pairs = zip(self.encode(some), self.reference(some), strict=True)
        return all(np.array_equal(mine, theirs) for mine, theirs in pairs)


def _fastokens(text: str) -> Any:
    try:
        import fastokens
    except ImportError:
        return None
    try:
        return fastokens.Tokenizer.from_json_str(text)
    except (ValueError, RuntimeError):
        return None  # a tokenizer of a kind that it does not know: Hugging Face does the work


def _separator(tokenizer: Any, folder: Path) -> int:
    """The token that ends a document: `<|endoftext|>`, or the bos or eos token of a tokenizer without it."""
    names = [SEPARATOR]
    config = folder / "tokenizer_config.json"
    if config.is_file():
        data = json.loads(config.read_text(encoding="utf-8"))
        for key in ("bos_token", "eos_token"):
            value = data.get(key)
            names.append(value["content"] if isinstance(value, dict) else value)
    for name in names:
        number = tokenizer.token_to_id(name) if isinstance(name, str) else None
        if number is not None:
            return int(number)
    raise InputError(f"{folder}: no {SEPARATOR}, bos_token or eos_token that could separate documents")
