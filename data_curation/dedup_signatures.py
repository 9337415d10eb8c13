"""What two documents are compared by: keys of URL and text, MinHash bands, a score that says which one stays."""

import re
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import xxhash

from data_curation.dedup import DedupConfig
from data_curation.dedup_columns import halves, with_metadata, write_columns
from data_curation.dedup_index import about
from data_curation.dedup_shingles import band_hashes, hash_texts
from data_curation.documents import parquet_file
from data_curation.files import filesystem
from data_curation.place import PieceWriter
from data_curation.settings import InputError

BATCH = 256
"""Documents that are hashed together."""
_ID = re.compile("[0-9a-f]{32}")


def sign(config: DedupConfig, uri: str, rank: int, piece: PieceWriter) -> None:
    """Write the signatures of one file of documents, row by row as they stand there.

    Columns: `id` (16 bytes), `url`, `url_key`, `score`, `exact` (16 bytes) and one hash per band (`band00`, ...).
    """
    fs, path = filesystem(uri)
    wanted = ["id", "url", "text", *({"newest": ["date"], "best": ["quality"]}.get(config.survivor, []))]
    with fs.open(path, "rb") as stream:
        file = parquet_file(stream)
        tables = [_signed(config, batch.to_pydict(), uri) for batch in file.iter_batches(BATCH, columns=wanted)]
    table = pa.concat_tables(tables or [_signed(config, {name: [] for name in wanted}, uri)])
    write_columns(piece, "work/signatures", f"{rank:05d}.parquet", with_metadata(table, about(config)))


def url_key(url: str) -> int:
    """64 bits, equal for spellings of one URL; 0 for what is none (the path of a file, nothing)."""
    from data_curation.url_list import normal_url

    return xxhash.xxh3_64_intdigest(normal_url(url).encode()) if "://" in url else 0


def _signed(config: DedupConfig, batch: dict[str, list[Any]], uri: str) -> pa.Table:
    hashed = hash_texts(batch["text"], config.ngram)
    bands = band_hashes(hashed, bands=config.bands, rows=config.rows, seed=config.seed)
    columns: dict[str, Any] = {
        "id": halves([_packed(id, uri) for id in batch["id"]]),
        "url": pa.array(batch["url"], pa.string()),
        "url_key": pa.array([url_key(url or "") for url in batch["url"]], pa.uint64()),
        "score": pa.array(_scores(config, batch), pa.float64()),
        "exact": halves(hashed.exact),
    }
    return pa.table(columns | {f"band{band:02d}": bands[:, band] for band in range(config.bands)})


def _packed(id: str, uri: str) -> bytes:
    if not _ID.fullmatch(id):
        raise InputError(f"{uri}: the id {id!r} is not 32 hex digits as `extract` gives them; extract the pages again")
    return bytes.fromhex(id)


def _scores(config: DedupConfig, batch: dict[str, list[Any]]) -> list[float]:
    """What the survivor has most of: bytes of text, seconds of its date, quality; nothing is less than anything."""
    if config.survivor == "longest":
        return [float(len(text.encode())) for text in batch["text"]]
    if config.survivor == "newest":
        return [_seconds(date) for date in batch["date"]]
    return [float("-inf") if value is None or value != value else value for value in batch["quality"]]


def _seconds(date: str) -> float:
    """An ISO 8601 date in seconds, a year or a month as its first day; what is no date is older than all."""
    padded = date + {4: "-01-01", 7: "-01"}.get(len(date), "")
    try:
        found = datetime.fromisoformat(padded)
    except ValueError:
        return float("-inf")
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
