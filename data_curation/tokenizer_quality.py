"""How good a tokenizer is: bytes per token by language and source beside a reference, unused entries, round trip."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from data_curation.counts import Counts
from data_curation.encoding import Encoder
from data_curation.place import Place

GROUPS = 12  # languages, and sources, shown one by one: those with the most bytes
# Characters from all of Unicode but the surrogates: between them they hold every byte that UTF-8 knows.
CHARACTERS = "".join(
    chr(code) for code in [*range(0x3000), *range(0x3000, 0x110000, 97)] if not 0xD800 <= code < 0xE000
)

Row = tuple[str, str, str]
"""Text, language and source of a document."""


@dataclass
class _Sizes:
    """Of some documents: UTF-8 bytes, tokens, tokens of the reference."""

    rows: list[tuple[int, int, int]] = field(default_factory=list[tuple[int, int, int]])

    @property
    def bytes(self) -> int:
        return sum(size for size, _, _ in self.rows)

    def ratio(self, top: int, bottom: int) -> dict[str, Any]:
        """Sum of one column over sum of another, with the standard error of a ratio estimate over documents."""
        sizes = np.array(self.rows, float).reshape(-1, 3)
        whole, number = sizes[:, bottom].sum(), len(self.rows)
        if whole == 0:
            return {"value": 0.0, "n": number, "standard_error": None}
        value = float(sizes[:, top].sum() / whole)
        residual = sizes[:, top] - value * sizes[:, bottom]
        error = math.sqrt(number * float(residual @ residual) / (number - 1)) / float(whole) if number > 1 else None
        return {"value": value, "n": number, "standard_error": error}


def measure(folder: Path, reference: Path, measured: Iterable[Row], trained: Iterable[Row], place: Place) -> Counts:
    """Metrics of the tokenizer in `folder` on the measured documents; `trained` only adds to the use of entries.

    `tokens_against_reference` is its tokens over those of the tokenizer in `reference`, of the same documents.
    """
    encoder, other = Encoder(folder), Encoder(reference)
    used = np.zeros(encoder.vocabulary, bool)
    groups: dict[str, dict[str, _Sizes]] = {"": {}, "language": {}, "source": {}}
    broken = 0 if encoder.slow.decode(encoder.encode([CHARACTERS])[0], skip_special_tokens=False) == CHARACTERS else 1
    for batch in _batched(measured):
        texts = [text for text, _, _ in batch]
        coded = encoder.encode(texts)
        for (text, language, source), ids, alike in zip(batch, coded, other.encode(texts), strict=True):
            row = (len(text.encode()), len(ids), len(alike))
            for kind, name in (("", ""), ("language", language), ("source", source)):
                groups[kind].setdefault(name, _Sizes()).rows.append(row)
            broken += encoder.slow.decode(ids, skip_special_tokens=False) != text
            used[ids] = True
    for batch in _batched(trained):
        for ids in encoder.encode([text for text, _, _ in batch]):
            used[ids] = True
    return _counts(groups, used, broken, encoder, place)


def _batched(rows: Iterable[Row]) -> Iterator[list[Row]]:
    left = iter(rows)
    while batch := list(islice(left, 256)):
        yield batch


def _counts(
    groups: dict[str, dict[str, _Sizes]],
    used: np.ndarray[Any, Any],
    broken: int,
    encoder: Encoder,
    place: Place,
) -> Counts:
    unused = encoder.vocabulary - int(used.sum()) - len(encoder.slow.get_added_tokens_decoder())
    counts = Counts(made={"entries": encoder.vocabulary})
    for kind, sizes in groups.items():
        largest = sorted(sizes, key=lambda name: (-sizes[name].bytes, name))[:GROUPS]
        # One group is all documents once more.
        for name in largest if kind in ("", "language") or len(largest) > 1 else []:
            tail = f"_{kind}_{name}" if kind == "source" else f"_{name}" if kind else ""
            counts.metrics[f"bytes_per_token{tail}"] = sizes[name].ratio(0, 1)
            counts.metrics[f"tokens_against_reference{tail}"] = sizes[name].ratio(1, 2)
        if kind:
            place.plot(
                f"bytes-per-token-{kind}",
                f"Bytes per token by {kind}, on documents not trained on",
                f"{kind} (most bytes first)",
                "bytes per token",
                {name: [(float(at), sizes[name].ratio(0, 1)["value"])] for at, name in enumerate(largest)},
                kind="bar",
            )
    counts.metrics["unused_entries"] = {"value": max(unused, 0), "n": encoder.vocabulary, "standard_error": None}
    number = len(groups[""][""].rows) + 1
    gate = {"gate": "round trip", "value": 1 - broken / number, "standard_error": None, "against": 1.0}
    counts.gates.append(gate | {"passed": broken == 0})
    return counts
