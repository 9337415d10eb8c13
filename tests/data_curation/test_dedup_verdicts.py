"""Guarantees of the verdicts: those of a slow and simple reference, for any signatures."""

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from data_curation.dedup import DedupConfig, judge
from data_curation.dedup_columns import as_bytes, read_piece, with_metadata
from data_curation.dedup_index import about
from data_curation.dedup_verdicts import REASONS
from data_curation.files import File, sha256_file
from data_curation.place import Piece
from tests.data_curation.places import place

CONFIG = DedupConfig(bands=2)


class Signature(NamedTuple):
    """One document as the verdicts see it."""

    url: int
    exact: int
    bands: tuple[int, int]
    score: int
    id: int


BANDS = st.one_of(st.just((0, 0)), st.tuples(st.integers(1, 9), st.integers(1, 9)))
SOME = st.lists(
    st.builds(Signature, st.integers(0, 5), st.integers(1, 9), BANDS, st.integers(0, 2), st.integers(0, 2**31)),
    max_size=9,
    unique_by=lambda one: one.id,
)


def written(path: Path, some: list[Signature]) -> File:
    """Signatures as a file."""
    ids, exact = (
        np.asarray([[0, value] for value in column], dtype=np.uint64).reshape(-1, 2) for column in columns(some)
    )
    table: dict[str, Any] = {
        "id": as_bytes(ids),
        "url": pa.array([""] * len(some), pa.string()),
        "url_key": np.asarray([one.url for one in some], dtype=np.uint64),
        "score": np.asarray([one.score for one in some], dtype=np.float64),
        "exact": as_bytes(exact),
    }
    table |= {f"band{band:02d}": np.asarray([one.bands[band] for one in some], dtype=np.uint64) for band in (0, 1)}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(with_metadata(pa.table(table), about(CONFIG)), path)
    return File(path.name, path.stat().st_size, sha256_file(str(path)), len(some))


def columns(some: list[Signature]) -> tuple[list[int], list[int]]:
    """Ids and hashes of texts."""
    return [one.id for one in some], [one.exact for one in some]


def meet(one: Signature, other: Signature) -> bool:
    """Whether two texts are equal or share a band."""
    same = any(left == right != 0 for left, right in zip(one.bands, other.bands, strict=True))
    return one.exact == other.exact or same


def cluster(start: Signature, some: list[Signature]) -> list[Signature]:
    """All that a chain of meetings leads to."""
    found = [start]
    for one in found:
        found += [other for other in some if other not in found and meet(one, other)]
    return found


def best(some: list[Signature]) -> Signature:
    """Highest score, then smallest id."""
    return min(some, key=lambda one: (-one.score, one.id))


def reference(old: list[Signature], new: list[Signature]) -> dict[int, tuple[str, set[int]]]:
    """Step and the ids that may be named, by the id of each document that goes."""
    gone: dict[int, tuple[str, set[int]]] = {}
    for one in new:
        known = [other.id for other in old if other.url == one.url != 0]
        winner = best([other for other in new if other.url == one.url])
        if known:
            gone[one.id] = ("index", {known[0]})
        elif one.url and winner != one:
            gone[one.id] = ("url", {winner.id})
    left = [one for one in new if one.id not in gone]
    for one in left:
        some = cluster(one, [*old, *left])
        known = [other for other in old if other in some]
        direct = [other for other in known if meet(one, other)]
        winner = best(some)
        if known:
            gone[one.id] = ("index", {other.id for other in direct} or {known[0].id})
        elif winner != one:
            gone[one.id] = ("exact" if winner.exact == one.exact else "minhash", {winner.id})
    for one in new:
        if gone.get(one.id, ("", {}))[0] == "url":  # what it went for may have gone since
            (winner,) = gone[one.id][1]
            gone[one.id] = ("url", gone[winner][1] if winner in gone else {winner})
    return gone


@settings(max_examples=100, deadline=None)
@given(SOME, SOME)
def test_verdicts_are_those_of_the_reference(old: list[Signature], new: list[Signature]) -> None:
    """Step by step over lists, or column by column over arrays: the same documents go, for the same ones."""
    expected = reference(old, new)
    with tempfile.TemporaryDirectory() as folder:
        where = place(f"{folder}/home", Path(folder) / "scratch")
        older = [f"{folder}/old.parquet"] if old else []
        if old:
            written(Path(older[0]), old)
        signed: list[Piece] = []
        for rank in range(2):
            path = Path(where.home) / "work" / "signatures" / f"{rank:05d}.parquet"
            signed.append(Piece(f"signatures-{rank:05d}", {"work/signatures": [written(path, new[rank::2])]}))
        judge(CONFIG, older, [], signed, where)
        found: dict[int, tuple[str, int]] = {}
        for rank in range(2):
            verdicts = read_piece(where, "clusters", "work/verdicts", f"{rank:05d}.parquet").to_pylist()
            for one, verdict in zip(new[rank::2], verdicts, strict=True):
                if verdict["code"]:
                    found[one.id] = (REASONS[verdict["code"]][0], int.from_bytes(verdict["kept"], "big"))
                else:
                    assert int.from_bytes(verdict["kept"], "big") == one.id
    assert {id: step for id, (step, _) in found.items()} == {id: step for id, (step, _) in expected.items()}
    assert all(kept in expected[id][1] for id, (_, kept) in found.items())
