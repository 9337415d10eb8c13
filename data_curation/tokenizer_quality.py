"""How good a tokenizer is: bytes per token by language, unused entries, round trip."""

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from data_curation.counts import Counts
from data_curation.encoding import Encoder
from data_curation.place import Place

LANGUAGES = 12  # shown one by one, those with the most bytes
# Characters from all of Unicode but the surrogates: between them they hold every byte that UTF-8 knows.
CHARACTERS = "".join(
    chr(code) for code in [*range(0x3000), *range(0x3000, 0x110000, 97)] if not 0xD800 <= code < 0xE000
)

Rows = Iterable[tuple[str, str]]


def measure(folder: Path, measured: Rows, trained: Rows, place: Place) -> Counts:
    """Metrics of the tokenizer in `folder` on (text, language) rows; `trained` only adds to the use of entries."""
    encoder = Encoder(folder)
    used = np.zeros(encoder.vocabulary, bool)
    languages: dict[str, list[tuple[int, int]]] = {}
    broken = 0 if encoder.slow.decode(encoder.encode([CHARACTERS])[0], skip_special_tokens=False) == CHARACTERS else 1
    for batch in _batched(measured):
        texts = [text for text, _ in batch]
        for (text, language), ids in zip(batch, encoder.encode(texts), strict=True):
            languages.setdefault(language, []).append((len(text.encode()), len(ids)))
            broken += encoder.slow.decode(ids, skip_special_tokens=False) != text
            used[ids] = True
    for batch in _batched(trained):
        for ids in encoder.encode([text for text, _ in batch]):
            used[ids] = True
    return _counts(languages, used, broken, encoder, place)


def _batched(rows: Rows) -> Iterator[list[tuple[str, str]]]:
    left = iter(rows)
    while batch := list(islice(left, 256)):
        yield batch


def _counts(
    languages: dict[str, list[tuple[int, int]]], used: np.ndarray[Any, Any], broken: int, encoder: Encoder, place: Place
) -> Counts:
    everything = [pair for pairs in languages.values() for pair in pairs]
    largest = sorted(languages, key=lambda name: (-sum(size for size, _ in languages[name]), name))[:LANGUAGES]
    unused = encoder.vocabulary - int(used.sum()) - len(encoder.slow.get_added_tokens_decoder())
    counts = Counts(made={"entries": encoder.vocabulary})
    counts.metrics["bytes_per_token"] = _ratio(everything)
    for name in largest:
        counts.metrics[f"bytes_per_token_{name}"] = _ratio(languages[name])
    counts.metrics["unused_entries"] = {"value": max(unused, 0), "n": encoder.vocabulary, "standard_error": None}
    value = 1 - broken / (len(everything) + 1)
    gate = {"gate": "round trip", "value": value, "standard_error": None, "against": 1.0, "passed": broken == 0}
    counts.gates.append(gate)
    place.plot(
        "bytes-per-token",
        "Bytes per token by language, on documents not trained on",
        "language (most bytes first)",
        "bytes per token",
        {name: [(float(at), counts.metrics[f"bytes_per_token_{name}"]["value"])] for at, name in enumerate(largest)},
        kind="bar",
    )
    return counts


def _ratio(pairs: list[tuple[int, int]]) -> dict[str, Any]:
    """Bytes per token of all documents together, with the standard error of a ratio estimate over documents."""
    sizes = np.array(pairs, float).reshape(-1, 2)
    tokens, number = sizes[:, 1].sum(), len(pairs)
    if tokens == 0:
        return {"value": 0.0, "n": number, "standard_error": None}
    ratio = float(sizes[:, 0].sum() / tokens)
    residual = sizes[:, 0] - ratio * sizes[:, 1]
    error = math.sqrt(number * float(residual @ residual) / (number - 1)) / float(tokens) if number > 1 else None
    return {"value": ratio, "n": number, "standard_error": error}
