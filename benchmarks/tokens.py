"""Tokenising, packing and feeding on one core beside Hugging Face tokenizers, datatrove and TRL.

python -m benchmarks.tokens [--megabytes 80] [--json] [--save]
"""

import argparse
import itertools
import os
import sysconfig
import tempfile
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}

import numpy as np
import psutil
import xxhash

from benchmarks.dedup_memory import new_place
from benchmarks.measure import Row, finish, in_turns, options, pin, row, seconds
from data_curation.artifact import Artifact
from data_curation.documents import DOCUMENTS, write_table
from data_curation.encoding import Encoder
from data_curation.place import parts_of
from data_curation.shard import ShardConfig, shard
from data_curation.shards import Shards
from data_curation.token_runs import Tokenise
from data_curation.tokenizer import TokenizerConfig, tokenizer
from training.batches import WINDOW_TOKENS, Batches

GOAL_TOKENISE, GOAL_FEED = 10_000_000.0, 2_500_000.0
SHARE_BYTES, SHARES = 10_000_000, 3  # of text that both sides encode in turns
TRAINED_BYTES, WARM_BYTES = 12_000_000, 200_000  # fastokens remembers texts, so both are none of those measured
LENGTHS = (2048, 8192, 32768)
NOTE = """
One pinned core, CPU time, both sides in turns on the same documents: the text files of the installed Python packages
(source code and documentation). `tokenise` of ours reads Parquet, checks a sample against Hugging Face, sorts and
writes; Hugging Face's `encode_batch_fast` only encodes texts in memory; datatrove's DocumentTokenizer encodes and
writes.
`feed` of ours packs documents by best fit and gathers tokens, labels, positions and document numbers; TRL's
`pack_dataset` (bfd_split) makes an Arrow table of the documents and packs it; datatrove's dataset cuts fixed windows.
"""


def main() -> int:
    """Print one row per figure; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=80, help="of text in all (default 80)")
    options(parser)
    asked = parser.parse_args()
    pin()
    with tempfile.TemporaryDirectory(prefix="tokenmill-bench-") as folder:
        home = Path(folder)
        shares = documents(asked.megabytes * 10**6, home / "documents")
        place = new_place(home / "tokenizer")
        tokenizer(TokenizerConfig(sample_bytes=TRAINED_BYTES), shares[0], place)
        bpe = Artifact("tokenizer", place.home, parts_of(place.pieces()), key="tokenizer")
        rows, agreement = tokenise(shares[1], shares[2 : 2 + SHARES], Path(bpe.uri("tokenizer")), home)
        made = new_place(home / "shard")
        spent = seconds(lambda: shard(ShardConfig(), shares, bpe, made))
        shards = Shards(Path(made.home) / "shards")
        rows.append(row("tokenise and shard, whole stage", int(shards.lengths.sum()) / spent, None, "tokens/s"))
        agreement["tokens of a document on average"] = float(shards.lengths.mean())
        for length in LENGTHS:
            more, differing = feed(shards, length)
            rows += more
            agreement |= differing
        rows.append(memory(shards))
    result = {"rows": rows, "agreement": agreement}
    return finish("tokens", "tokenise, pack and feed", NOTE, result, asked)


def documents(size: int, home: Path) -> list[Artifact]:
    """Text files of the installed packages as documents: to train on, to warm up with, shares to measure, the rest."""
    given = texts(size)
    sizes = [TRAINED_BYTES, WARM_BYTES, *[SHARE_BYTES] * SHARES, size]
    return [_artifact(_take(given, share), home / f"{at}") for at, share in enumerate(sizes)]


def texts(size: int) -> Iterator[tuple[str, str]]:
    """(path, text) of text files in an order that follows from their names alone, `size` bytes of them."""
    root = Path(sysconfig.get_paths()["purelib"])
    paths = [path for end in (".py", ".md", ".rst", ".txt") for path in root.rglob(f"*{end}")]
    for path in sorted(paths, key=lambda path: xxhash.xxh3_64_intdigest(str(path.relative_to(root)))):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if text and len(text) < 500_000:
            yield str(path.relative_to(root)), text
            size -= len(text.encode())
        if size <= 0:
            return


def _take(given: Iterator[tuple[str, str]], size: int) -> list[tuple[str, str]]:
    taken: list[tuple[str, str]] = []
    while size > 0 and (one := next(given, None)):
        taken.append(one)
        size -= len(one[1].encode())
    return taken


def _artifact(some: list[tuple[str, str]], home: Path) -> Artifact:
    place = new_place(home)
    empty = dict.fromkeys(DOCUMENTS.names, "") | {"language_score": None, "quality": None}
    rows = [
        empty | {"id": xxhash.xxh3_128_hexdigest(name), "url": name, "text": text, "source": name.rpartition(".")[2]}
        for name, text in some
    ]
    with place.piece("00000") as piece:
        write_table(piece, "documents", "00000.parquet", rows, DOCUMENTS)
    return Artifact("documents", place.home, parts_of(place.pieces()), key=home.name)


def tokenise(warm: Artifact, shares: list[Artifact], folder: Path, home: Path) -> tuple[list[Row], dict[str, Any]]:
    """Ours from Parquet to sorted runs on disk, beside encoding alone and datatrove's road to a file."""
    from datatrove.data import Document
    from datatrove.pipeline.tokens import DocumentTokenizer

    encoder, numbers = Encoder(folder), itertools.count()
    loaded = {one.key: [text["text"] for text in _rows(one)] for one in [warm, *shares]}
    ids = {name: sha256() for name in ("ours", "huggingface")}
    tokens = 0

    def ours(one: Artifact) -> None:
        with new_place(home / f"ours{next(numbers)}").piece("0") as piece:
            Tokenise(one.uris("documents"), folder, 0)(0, piece)

    def huggingface(one: Artifact) -> None:
        encoder.slow.encode_batch_fast(loaded[one.key], add_special_tokens=False)

    def datatrove(one: Artifact) -> None:
        given = (Document(text, str(at)) for at, text in enumerate(loaded[one.key]))
        made = DocumentTokenizer(
            str(home / f"stock{next(numbers)}"), tokenizer_name_or_path=str(folder / "tokenizer.json"),
            eos_token="<|endoftext|>", shuffle_documents=False,
        )  # fmt: skip
        for _ in made.run(given) or ():
            pass

    for side in (ours, huggingface, datatrove):
        side(warm)  # loads what it needs
    spent = in_turns({"ours": ours, "huggingface": huggingface, "datatrove": datatrove}, shares)
    for one in shares:
        mine, theirs = encoder.encode(loaded[one.key]), encoder.reference(loaded[one.key])
        tokens += sum(map(len, mine))
        for name, arrays in (("ours", mine), ("huggingface", theirs)):
            ids[name].update(np.concatenate(arrays).tobytes())
    speeds = {name: tokens / some for name, some in spent.items()}
    equal = ids["ours"].digest() == ids["huggingface"].digest()
    return [
        row("tokenise, Hugging Face beside", speeds["ours"], speeds["huggingface"], "tokens/s", GOAL_TOKENISE),
        row("tokenise, datatrove beside", speeds["ours"], speeds["datatrove"], "tokens/s"),
    ], {"tokenise: tokens": tokens, "tokenise: all ids equal": equal}


def _rows(one: Artifact) -> list[dict[str, Any]]:
    from data_curation.documents import read_rows

    return [line for uri in one.uris("documents") for line in read_rows(uri, ["text"])]


def feed(shards: Shards, length: int) -> tuple[list[Row], dict[str, Any]]:
    """One epoch of batches, beside TRL's packing and datatrove's fixed windows of the same tokens."""
    per_step = max(1 << 17, length)
    steps = int(shards.lengths.sum()) // per_step
    counted = {"cut": 0, "padding": 0.0}

    def ours(_: None) -> None:
        batches = Batches(shards, seed=0, tokens_per_step=per_step, phases=[(length, steps)])
        for step in range(steps):
            batches.batch(0, step)

    peers = {"trl": partial(_trl, shards, length, counted), "datatrove": partial(_windows, shards, length)}
    ours(None)
    spent = in_turns({"ours": ours, **peers}, [None])
    tokens = steps * per_step
    batches = Batches(shards, seed=0, tokens_per_step=per_step, phases=[(length, steps)])
    cut = _cut(batches, length)
    fitting = int((shards.lengths <= length).sum())
    speeds = {name: tokens / some for name, some in spent.items()}
    return [
        row(f"pack and feed {length:,}, TRL beside", speeds["ours"], speeds["trl"], "tokens/s", GOAL_FEED),
        row(f"feed {length:,}, datatrove's windows beside", speeds["ours"], speeds["datatrove"], "tokens/s"),
    ], {
        f"{length:,}: padding": {"ours": 0.0, "trl": counted["padding"]},
        f"{length:,}: share of the documents that fit which are cut": {"ours": cut / fitting, "trl": 0.0},
    }


def _trl(shards: Shards, length: int, counted: dict[str, float], _: None) -> None:
    from datasets import Dataset, disable_progress_bars
    from trl.data_utils import pack_dataset

    disable_progress_bars()
    given = [shards.tokens(number) for number in range(len(shards))]
    packed = pack_dataset(Dataset.from_dict({"input_ids": given}), length, strategy="bfd_split")
    counted["padding"] = 1 - int(shards.lengths.sum()) / (len(packed) * length)


def _windows(shards: Shards, length: int, _: None) -> None:
    from datatrove.utils.dataset import DatatroveFileDataset

    for one in shards.index.shards:
        path = Path(shards.folder) / f"{one.name}.tokens"
        windows = DatatroveFileDataset(
            str(path), length, shards.index.dtype.itemsize, positions_from_eos_token_id=shards.index.separator,
            return_positions=True,
        )  # fmt: skip
        for number in range(len(windows)):
            windows[number]


def _cut(batches: Batches, length: int) -> int:
    """Documents that fit a row and lie in several."""
    pieces = np.zeros(len(batches.shards), int)
    per_window = max(1, WINDOW_TOKENS // batches.tokens_per_step)
    for window in range(-(-batches.phases[0][1] // per_window)):
        pieces += np.bincount(batches._window(0, window).documents, minlength=len(pieces))  # pyright: ignore
    return int(((pieces > 1) & (batches.shards.lengths <= length)).sum())


def memory(shards: Shards) -> Row:
    """Resident memory after five epochs, beside that after the first window."""
    per_step = 1 << 17
    steps = 5 * int(shards.lengths.sum()) // per_step
    batches = Batches(shards, seed=0, tokens_per_step=per_step, phases=[(2048, steps)])
    process, found = psutil.Process(), list[float]()
    for step in range(steps):
        batches.batch(0, step)
        if step in (WINDOW_TOKENS // per_step, steps - 1):
            found.append(process.memory_info().rss / 2**20)
    return row(
        "memory after five epochs, after one window beside", found[-1], found[0], "MiB", found[0] * 1.1, less=True
    )


if __name__ == "__main__":
    raise SystemExit(main())
