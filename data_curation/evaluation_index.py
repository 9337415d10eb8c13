"""An index of evaluation texts by short runs of their words, as sorted hashes that lie in mapped files."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from data_curation.grams import fold, folded_words, words
from data_curation.place import Piece, PieceWriter, Place

Array = NDArray[Any]

ITEMS_PER_ANCHOR = 50
"""An anchor in more evaluation texts than this is their template ("which of the following is"): it finds none of them,
but for a text that has no rarer one."""
TEXTS = 5000
"""Evaluation texts whose words a process remembers."""
_BITS = 4  # the filter has 2^4 bits per anchor and more: less than one word in 16 that is no anchor gets through
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: odd, its bits without a pattern
_FILES = ("anchors", "starts", "items", "offsets", "filter")
CHUNKS = 300_000
"""Chunks between spaces whose words' hashes a process remembers, about 60 MB."""
_CHUNK = 64  # characters of the longest one remembered: scripts without spaces make chunks that never come again


class _WordHashes(dict[str, bytes]):
    """xxh3-64 of each compared word of a folded chunk without spaces, eight bytes each; made once per chunk."""

    def __missing__(self, chunk: str) -> bytes:
        plain = chunk.isascii() and chunk.isalnum()  # then it is one word, as most are
        found = xxhash.xxh3_64_digest(chunk) if plain else word_hashes(folded_words(chunk))
        if len(chunk) <= _CHUNK:
            if len(self) >= CHUNKS:
                self.clear()
            self[chunk] = found
        return found


_hashes = _WordHashes()


class Grams(NamedTuple):
    """Hashes of all runs of words of a length: `hashes`, the number of the `text` and the `offset` in words of each."""

    hashes: NDArray[np.uint64]
    texts: Array
    offsets: Array


@dataclass(frozen=True)
class Index:
    """Evaluation texts by their anchors: `anchor` words in a row, hashed; about 26 MB per million of them."""

    anchor: int
    anchors: NDArray[np.uint64]
    """Sorted, each once."""
    starts: Array
    """Where in `items` and `offsets` the places of each anchor begin; one entry more than anchors."""
    items: Array
    """Number of an evaluation text that has the anchor."""
    offsets: Array
    """Words before the anchor in that text."""
    filter: Array
    """Bits, one of them set for the leading bits of each anchor."""
    texts: pa.Table
    """Columns as in `evaluation_items.ITEMS`."""
    known: dict[int, tuple[list[str], list[int]]] = field(default_factory=dict)
    """Words, and their hashes, of texts that were compared of late."""

    def lookup(self, hashes: NDArray[np.uint64]) -> tuple[Array, Array]:
        """Which of the hashes are anchors, and the number of the anchor for each of these."""
        bits = hashes >> np.uint64(64 - (len(self.filter) * 8).bit_length() + 1)
        # Most words are no anchor: one bit says so without a search in memory that no cache holds.
        maybe = np.flatnonzero((self.filter[bits >> np.uint64(3)] >> (bits & np.uint64(7)).astype(np.uint8)) & 1)
        found = np.searchsorted(self.anchors, hashes[maybe])
        found[found == len(self.anchors)] = 0
        same = self.anchors[found] == hashes[maybe] if len(self.anchors) else np.zeros(0, dtype=bool)
        return maybe[same], found[same]

    def places(self, numbers: Array) -> tuple[Array, Array]:
        """All places of the given anchors: the position in `numbers`, and the row in `items` and `offsets`."""
        begin, many = self.starts[numbers].astype(np.int64), np.diff(self.starts)[numbers].astype(np.int64)
        first = np.cumsum(many) - many
        return np.repeat(np.arange(len(numbers)), many), np.arange(many.sum()) + np.repeat(begin - first, many)

    def text(self, item: int) -> dict[str, Any]:
        """The row of an evaluation text."""
        return self.texts.slice(item, 1).to_pylist()[0]

    def words(self, item: int) -> tuple[list[str], list[int]]:
        """The compared words of an evaluation text, and their hashes."""
        if item not in self.known:
            if len(self.known) >= TEXTS:
                self.known.clear()
            listed = words(self.text(item)["text"])
            self.known[item] = listed, numbers(word_hashes(listed)).tolist()
        return self.known[item]


def text_hashes(text: str) -> bytes:
    """Eight bytes for each compared word of a text, in a quarter of the time that `words` takes."""
    return b"".join(map(_hashes.__getitem__, fold(text).split()))


def word_hashes(listed: Sequence[str]) -> bytes:
    """The same for a text given as its compared words."""
    return b"".join(map(xxhash.xxh3_64_digest, listed))


def numbers(hashes: bytes) -> NDArray[np.uint64]:
    """Hashes of words as numbers."""
    return np.frombuffer(hashes, dtype=">u8").astype(np.uint64)


def gram_hashes(texts: Sequence[bytes], size: int) -> Grams:
    """All runs of `size` words of texts given as the hashes of their words."""
    many = np.asarray([len(text) // 8 for text in texts], dtype=np.int64)
    flat = numbers(b"".join(texts))
    runs = np.maximum(many - size + 1, 0)
    # The runs of a text are consecutive words' places; those that would reach into the next text are left out.
    origin = np.repeat(np.arange(len(many)), runs)
    offsets = np.arange(runs.sum()) - np.repeat(np.cumsum(runs) - runs, runs)
    stop = max(len(flat) - size + 1, 0)
    rolled = flat[:stop].copy()
    for step in range(1, size):
        rolled *= _FACTOR
        rolled += flat[step : stop + step]
    rolled = rolled[offsets + np.repeat(np.cumsum(many) - many, runs)]
    rolled ^= rolled >> np.uint64(32)
    rolled *= _FACTOR
    return Grams(rolled ^ (rolled >> np.uint64(29)), origin, offsets)


def write_index(piece: PieceWriter, part: str, texts: Sequence[str], anchor: int) -> None:
    """Write the index of the texts, in their order; how many anchors it has goes into the piece's note."""
    grams = gram_hashes([text_hashes(text) for text in texts], anchor)
    order = np.argsort(grams.hashes, kind="stable")
    first = np.ones(len(order), dtype=bool)  # of the places that an anchor has in one text, the first is enough
    first[1:] = np.diff(grams.hashes[order]).astype(bool) | np.diff(grams.texts[order]).astype(bool)
    order = order[first]
    anchors, which, many = np.unique(grams.hashes[order], return_inverse=True, return_counts=True)
    items, per_place = grams.texts[order], many[which]
    rarest = np.full(len(texts), np.iinfo(np.int64).max)
    np.minimum.at(rarest, items, per_place)
    kept = (per_place <= ITEMS_PER_ANCHOR) | (per_place == rarest[items])
    starts = np.concatenate([[0], np.cumsum(np.bincount(which[kept], minlength=len(anchors)))])
    bits = max(len(anchors).bit_length() + _BITS, 10)
    leading = anchors >> np.uint64(64 - bits)
    filled = np.zeros(1 << bits, dtype=bool)
    filled[leading] = True
    arrays = (
        anchors,
        starts.astype(np.uint32),
        items[kept].astype(np.uint32),
        grams.offsets[order][kept].astype(np.uint32),
        np.packbits(filled, bitorder="little"),
    )
    for name, array in zip(_FILES, arrays, strict=True):
        save(piece, part, f"{name}.npy", array)
    piece.piece.note["anchors"] = {"number": len(anchors), "bytes": sum(array.nbytes for array in arrays)}


def save(piece: PieceWriter, part: str, path: str, array: Array) -> None:
    """Write one array as a `.npy` file of a part."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    with piece.write(part, path) as out:
        out.write(buffer.getvalue())


def load(place: Place, piece: Piece, part: str, anchor: int) -> Index:
    """The written index, read once per process; its arrays are mapped, so that the workers of a machine share them."""
    key = (place.home, *(file.sha256 for file in piece.files[part]))
    if key not in _loaded:
        _loaded.clear()
        folder = place.folder(piece, part)
        anchors, starts, items, offsets, bits = (
            np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _FILES
        )
        texts = pq.read_table(folder / "items.parquet")
        _loaded[key] = Index(anchor, anchors, starts, items, offsets, bits, texts)
    return _loaded[key]


_loaded: dict[tuple[str, ...], Index] = {}


def read_array(folder: Path, name: str) -> Array:
    """One written array, whole."""
    return np.load(folder / f"{name}.npy", allow_pickle=False)
