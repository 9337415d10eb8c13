"""Which documents are near-duplicates of given texts: by the index of a finished `dedup`, or by their own texts."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_curation.dedup import DedupConfig
from data_curation.dedup_columns import Columns
from data_curation.dedup_shingles import band_hashes, hash_texts


@dataclass(frozen=True)
class Signatures:
    """What texts are compared by, as `dedup` does it: two are near if they share the exact hash or a band."""

    exact: NDArray[np.uint64]
    """Shape (texts, 2)."""
    bands: NDArray[np.uint64]
    """Shape (texts, bands); 0 is none, of a text that is too short."""

    @staticmethod
    def of(config: DedupConfig, texts: list[str]) -> "Signatures":
        """Signatures under the settings of a `dedup`."""
        hashed = hash_texts(texts, config.ngram)
        exact = np.frombuffer(b"".join(hashed.exact), dtype=">u8").reshape(-1, 2).astype(np.uint64)
        return Signatures(exact, band_hashes(hashed, bands=config.bands, rows=config.rows, seed=config.seed))

    def near(self, exact: NDArray[np.uint64], bands: Iterable[NDArray[np.uint64]]) -> NDArray[np.bool_]:
        """Which rows are near one of these texts; `bands` come one by one, each with a value a row."""
        known = {(int(high), int(low)) for high, low in self.exact}
        maybe = np.flatnonzero(np.isin(exact[:, 0], self.exact[:, 0]))
        found = np.zeros(len(exact), bool)
        found[[row for row in maybe if (int(exact[row, 0]), int(exact[row, 1])) in known]] = True
        for number, values in enumerate(bands):
            found |= np.isin(values, self.bands[:, number]) & (values != 0)
        return found


def near_in_index(config: DedupConfig, index: list[str], texts: list[str]) -> list[str]:
    """Ids of the documents in index files (URIs, made with this config) that are near one of the texts."""
    columns = Columns.of(index)
    bands = (columns.numbers(f"band{band:02d}") for band in range(config.bands))
    found = Signatures.of(config, texts).near(columns.pairs("exact"), bands)
    return [f"{high:016x}{low:016x}" for high, low in columns.pairs("id")[found].tolist()]


def near_texts(config: DedupConfig, candidates: dict[str, str], texts: list[str]) -> list[str]:
    """Which of the candidates, id -> text, are near one of the texts."""
    if not candidates:
        return []
    theirs = Signatures.of(config, list(candidates.values()))
    found = Signatures.of(config, texts).near(theirs.exact, theirs.bands.T)
    return [name for name, near in zip(candidates, found.tolist(), strict=True) if near]
