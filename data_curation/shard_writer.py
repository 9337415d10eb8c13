"""Writes THE SHARD FORMAT of shards.py: one shard at a time, then the index over all."""

import json
import zlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from data_curation.files import Writer, writing
from data_curation.settings import InputError
from data_curation.shard_index import BLOCK_BYTES, BUCKETS, Index, Shard, length_class
from data_curation.shards import RECORD, Document, Records

Open = Callable[[str], AbstractContextManager[Writer]]
Histogram = dict[str, dict[str, list[int]]]


def write_shard(open_file: Open, name: str, index: Index, documents: Iterable[Document]) -> tuple[Shard, Records]:
    """Write the three files of one shard through `open_file(path)`; documents come with their separator.

    Returns its line in the index and its records. Raises InputError for a token that the vocabulary does not have.
    """
    sources, languages = _numbers(index.sources), _numbers(index.languages)
    rows: list[tuple[Any, ...]] = []
    checksums, rest, offset = list[int](), bytearray(), 0
    with open_file(f"{name}.tokens") as out:
        for document in documents:
            size = len(document.tokens)
            if size == 0 or int(document.tokens.max()) >= index.vocabulary:
                raise InputError(
                    f"document {document.id}: no token, or one outside the vocabulary ({index.vocabulary})"
                )
            if not (document.id.isascii() and 0 < len(document.id) <= RECORD["id"].itemsize):
                raise InputError(f"document id {document.id!r}: ids have 1 to 32 ASCII characters")
            place = (sources[document.source], languages[document.language])
            rows.append((offset, size, document.bytes, document.id.encode(), *place))
            offset += size
            rest += document.tokens.astype(index.dtype).tobytes()
            whole = len(rest) - len(rest) % BLOCK_BYTES
            checksums += [zlib.crc32(rest[at : at + BLOCK_BYTES]) for at in range(0, whole, BLOCK_BYTES)]
            out.write(bytes(rest[:whole]))
            del rest[:whole]
        if rest:
            checksums.append(zlib.crc32(rest))
            out.write(bytes(rest))
        out.rows = len(rows)
    hashes = {"tokens": out.sha256.hexdigest()}
    records = np.array(rows, RECORD)
    for kind, array in (("documents", records), ("checksums", np.array(checksums, "<u4"))):
        with open_file(f"{name}.{kind}.npy") as out:
            stream = BytesIO()
            np.save(stream, array, allow_pickle=False)
            out.write(stream.getvalue())
        hashes[kind] = out.sha256.hexdigest()
    return Shard(name, offset, len(rows), hashes), records


def write_index(open_file: Open, index: Index, made: Iterable[tuple[Shard, Histogram]]) -> Index:
    """Write index.json over all shards with their histograms (`histogram` of their records); returns the index."""
    shards: list[Shard] = []
    lengths: Histogram = {}
    for shard, some in made:
        shards.append(shard)
        for source, columns in some.items():
            mine = lengths.setdefault(source, {"documents": [0] * BUCKETS, "tokens": [0] * BUCKETS})
            for column, numbers in columns.items():
                mine[column] = [a + b for a, b in zip(mine[column], numbers, strict=True)]
    index = replace(index, shards=tuple(shards), lengths=lengths)
    with open_file("index.json") as out:
        out.write(json.dumps(index.to_json(), indent=1, sort_keys=True, ensure_ascii=False).encode())
    return index


def histogram(index: Index, records: Records) -> Histogram:
    """{source: {"documents": [...], "tokens": [...]}} by power of two of the length in tokens."""
    bucket = length_class(records["length"].astype(np.int64))
    found: Histogram = {}
    for number in np.unique(records["source"]):
        mine = records["source"] == number
        tokens = np.bincount(bucket[mine], records["length"][mine].astype(float), BUCKETS)
        found[index.sources[number]] = {
            "documents": np.bincount(bucket[mine], minlength=BUCKETS).tolist(),
            "tokens": tokens.astype(int).tolist(),
        }
    return found


def write_folder(folder: Path, index: Index, documents: Iterable[Document]) -> Index:
    """Write documents, in their order, as a local folder of one shard; for programs that have no stage."""

    def open_file(path: str) -> AbstractContextManager[Writer]:
        return writing(str(folder / path))

    shard, records = write_shard(open_file, "00000", index, documents)
    return write_index(open_file, index, [(shard, histogram(index, records))])


def _numbers(names: tuple[str, ...]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}
