"""Signatures and clusters of `dedup` beside datatrove's, and what it finds: recall, precision, memory."""

import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupSignature,
)

from benchmarks.dedup_memory import new_place
from benchmarks.measure import Row, in_turns, parts, row
from data_curation.artifact import Artifact
from data_curation.dedup import DedupConfig, SignTask, dedup
from data_curation.dedup_clusters import join
from data_curation.dedup_shingles import band_hashes, hash_texts
from data_curation.documents import DOCUMENTS, write_table
from data_curation.place import parts_of

GOAL_SIGNATURES, GOAL_PAIRS = 4_000.0, 1_000_000.0
CONFIG = DedupConfig()
PAIRS, NODES, FILES = 1_000_000, 600_000, 8
WARM, CHUNK = 64, 250
Texts = list[tuple[str, str]]


def signatures(texts: Texts, home: Path) -> tuple[list[Row], dict[str, Any]]:
    """Signatures on disk: ours from a Parquet file of documents, datatrove's from documents in memory."""
    made = iter(range(10**6))

    def ours(some: Texts) -> None:
        _sign(prepared[id(some)], home / f"ours{next(made)}")

    def stock(some: Texts) -> None:
        given = [Document(text, url) for url, text in some]
        MinhashDedupSignature(str(home / f"stock{next(made)}"), MinhashConfig()).run(iter(given))

    shares = parts(texts, CHUNK)
    prepared = {id(some): documents(some, home / f"given{index}") for index, some in enumerate([texts[:WARM], *shares])}
    warm = texts[:WARM]
    prepared[id(warm)] = documents(warm, home / "warm")
    ours(warm)
    stock(warm)
    spent = in_turns({"ours": ours, "stock": stock}, shares)
    speeds = [len(texts) / spent[name] for name in ("ours", "stock")]
    return [row("MinHash signatures", speeds[0], speeds[1], "documents/s", GOAL_SIGNATURES)], _agreement(texts, home)


def clusters(home: Path) -> tuple[list[Row], dict[str, Any]]:
    """Clusters from one set of files of pairs, as datatrove's buckets write them."""
    home.mkdir()
    draw = np.random.default_rng(1)
    left = draw.integers(0, NODES, PAIRS, dtype=np.int64)
    right = np.minimum(left + draw.integers(1, 4, PAIRS), NODES - 1)
    table = np.stack([left % FILES, left // FILES, right % FILES, right // FILES], axis=1).astype("<u4")
    for bucket, part in enumerate(np.array_split(table, CONFIG.bands)):
        (home / f"00000_{bucket:02d}.dups").write_bytes(part.tobytes())
    labels = np.arange(NODES, dtype=np.int32)

    def ours(_: None) -> None:
        nonlocal labels
        for path in sorted(home.glob("*.dups")):
            pairs = np.frombuffer(path.read_bytes(), dtype="<u4").reshape(-1, 4).astype(np.int64)
            labels = join(labels, pairs[:, 0] + FILES * pairs[:, 1], pairs[:, 2] + FILES * pairs[:, 3])

    def stock(_: None) -> None:
        MinhashDedupCluster(str(home), str(home / "removed")).run()

    join(labels[:2], np.array([0]), np.array([1]))  # scipy is loaded
    spent = in_turns({"ours": ours, "stock": stock}, [None])
    removed = sum(path.stat().st_size // struct.calcsize("<I") for path in (home / "removed").glob("*.remove"))
    found = {"ours": NODES - 1 - int(labels.max()), "stock": removed}
    return [row("clusters", PAIRS / spent["ours"], PAIRS / spent["stock"], "pairs/s", GOAL_PAIRS)], {
        f"clusters: rows removed of {NODES:,}": found
    }


def recall(pairs: int = 600) -> list[Row]:
    """How often planted pairs of a given Jaccard index share a band, beside how often they should."""
    found: list[Row] = []
    for similarity in (0.5, 0.6, 0.7, 0.8, 0.9):
        draw, size = random.Random(similarity), 200
        shared = round(2 * size * similarity / (1 + similarity))
        sides: tuple[list[str], list[str]] = ([], [])
        for number in range(pairs):
            for side, texts in zip("ab", sides, strict=True):
                words = [f"c{number}x{index}" for index in range(shared)]
                texts.append(" ".join(draw.sample(words + [f"{side}{number}x{n}" for n in range(size - shared)], size)))
        left, right = (
            band_hashes(hash_texts(texts, 1), bands=CONFIG.bands, rows=CONFIG.rows, seed=1) for texts in sides
        )
        met = float((left == right).any(axis=1).mean())
        true = shared / (2 * size - shared)
        expected = 1 - (1 - true**CONFIG.rows) ** CONFIG.bands
        error = (expected * (1 - expected) / pairs) ** 0.5
        line = row(f"MinHash recall at {similarity}, expected beside", met, expected, "")
        found.append(line | {"goal": line["other"], "met": abs(met - expected) <= 2 * error, "standard_error": error})
    return found


def _sign(given: Artifact, home: Path) -> None:
    with new_place(home).piece("signatures-00000") as piece:
        SignTask(CONFIG, tuple(given.uris("documents")))(0, piece)


def _agreement(texts: Texts, home: Path) -> dict[str, Any]:
    """What either side would remove of the same documents by MinHash alone."""
    config, folder = MinhashConfig(), str(home / "stock")
    MinhashDedupSignature(f"{folder}/sig", config).run(iter([Document(text, url) for url, text in texts]))
    for bucket in range(config.num_buckets):
        MinhashDedupBuckets(f"{folder}/sig", f"{folder}/pairs", config=config).run(None, bucket, config.num_buckets)
    MinhashDedupCluster(f"{folder}/pairs", f"{folder}/remove", config=config).run()
    stock = sum(path.stat().st_size // 4 for path in Path(f"{folder}/remove").glob("*.remove"))
    counts = dedup(DedupConfig(url=False), documents(texts, home / "all"), new_place(home / "out"))
    gone = sum(line["documents"] for line in counts.funnel)
    precision = counts.metrics.get("near_duplicate_precision")
    return {"dedup: documents": len(texts), "dedup: removed": {"ours": gone, "stock": stock}} | (
        {"dedup: share of sampled near-duplicates that truly are": precision["value"]} if precision else {}
    )


def documents(texts: Texts, home: Path) -> Artifact:
    """Texts as the stages hand them on: one Parquet file."""
    place = new_place(home)
    empty = dict.fromkeys(DOCUMENTS.names, "") | {"language_score": None, "quality": None, "source": "web"}
    rows = [{**empty, "id": xxhash.xxh3_128_hexdigest(url), "url": url, "text": text} for url, text in texts]
    with place.piece("00000") as piece:
        write_table(piece, "documents", "00000.parquet", rows, DOCUMENTS)
    return Artifact("documents", place.home, parts_of(place.pieces()), key="documents")
