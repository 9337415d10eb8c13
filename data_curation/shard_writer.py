"""Writes THE SHARD FORMAT of shards.py: one shard at a time, then the index over all."""

import json
import zlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np

from data_curation.files import Writer, writing
from data_curation.settings import InputError
from data_curation.shard_index import BLOCK_BYTES, BUCKETS, Index, Shard, length_class
from data_curation.shards import RECORD, Document, Records, Tokens

Open = Callable[[str], AbstractContextManager[Writer]]
Block = tuple[Records, Tokens]
"""Records of some documents (`offset` does not matter) and all their tokens, one after the other."""
Histogram = dict[str, dict[str, list[int]]]


def write_shard(open_file: Open, name: str, index: Index, blocks: Iterable[Block]) -> tuple[Shard, Records]:
    """Write the three files of one shard through `open_file(path)`; its documents come in blocks of any size.

    Returns its line in the index and its records. Raises InputError for a token that the vocabulary does not have.
    """
    found: list[Records] = [np.zeros(0, RECORD)]
    checksums, rest, offset = list[int](), b"", 0
    with open_file(f"{name}.tokens") as out:
        for records, tokens in blocks:
            _check(index, records, tokens)
            records = records.copy()
            records["offset"] = offset + np.cumsum(records["length"]) - records["length"]
            found.append(records)
            offset += len(tokens)
            raw = rest + tokens.astype(index.dtype, copy=False).tobytes()
            whole = len(raw) - len(raw) % BLOCK_BYTES
            checksums += [zlib.crc32(raw[at : at + BLOCK_BYTES]) for at in range(0, whole, BLOCK_BYTES)]
            out.write(raw[:whole])
            rest = raw[whole:]
        if rest:
            checksums.append(zlib.crc32(rest))
            out.write(rest)
        every = np.concatenate(found)
        out.rows = len(every)
    hashes = {"tokens": out.sha256.hexdigest()}
    for kind, array in (("documents", every), ("checksums", np.array(checksums, "<u4"))):
        with open_file(f"{name}.{kind}.npy") as out:
            stream = BytesIO()
            np.save(stream, array, allow_pickle=False)
            out.write(stream.getvalue())
        hashes[kind] = out.sha256.hexdigest()
    return Shard(name, offset, len(every), hashes), every


def block_of(index: Index, documents: Iterable[Document]) -> Block:
    """Documents, which end with their separators, as one block."""
    some = list(documents)
    rows = [
        (0, len(one.tokens), one.bytes, one.id.encode(), index.sources.index(one.source),
         index.languages.index(one.language))
        for one in some
    ]  # fmt: skip
    for one in some:
        if not (one.id.isascii() and 0 < len(one.id) <= RECORD["id"].itemsize):
            raise InputError(f"document id {one.id!r}: ids have 1 to 32 ASCII characters")
    return np.array(rows, RECORD), np.concatenate([np.zeros(0, np.uint32), *(one.tokens for one in some)])


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

    shard, records = write_shard(open_file, "00000", index, [block_of(index, documents)])
    return write_index(open_file, index, [(shard, histogram(index, records))])


def _check(index: Index, records: Records, tokens: Tokens) -> None:
    if len(tokens) and int(tokens.max()) >= index.vocabulary:
        ends = np.cumsum(records["length"])
        owner = int(np.searchsorted(ends, int(tokens.argmax()), "right"))
        raise InputError(
            f"document {records['id'][owner].decode()}: token {tokens.max()} lies outside the vocabulary "
            f"({index.vocabulary}): these tokens were made by another tokenizer"
        )
    if int(records["length"].sum()) != len(tokens) or not (records["length"] > 0).all():
        raise InputError(f"documents of {records['length'].sum()} tokens in a block of {len(tokens)}, or an empty one")
