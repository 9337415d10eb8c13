"""The page of `dedup`: sizes of clusters, the largest ones, how similar what was dropped truly is, the index."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from data_curation.counts import Counts
from data_curation.decisions import bar_plot
from data_curation.dedup import DedupConfig
from data_curation.documents import parquet_file
from data_curation.files import filesystem
from data_curation.grams import shingles, words
from data_curation.place import Piece, Place

SIMILAR = 0.5
"""Jaccard index from which a dropped document counts as rightly dropped in `near_duplicate_precision`."""
BINS = 20
Where = tuple[int, int]
"""File and row of a document."""


def describe(
    config: DedupConfig,
    files: tuple[str, ...],
    verdicts: Piece,
    pieces: list[Piece],
    counts: Counts,
    place: Place,
) -> None:
    """Metrics, plots and samples of a finished run."""
    _clusters(files, verdicts, counts, place)
    _precision(_similarities(config, files, verdicts, place), counts, place)
    rows = sum(file.rows or 0 for piece in pieces for file in piece.files["index"])
    counts.metrics["index_documents"] = {"value": rows, "n": None, "standard_error": None}
    counts.metrics["older_documents"] = {"value": verdicts.note["old"], "n": None, "standard_error": None}
    if verdicts.note["unscored"]:
        what = {"newest": "date", "best": "quality"}[config.survivor]
        counts.warnings.append(
            f"{verdicts.note['unscored']} of {counts.taken['documents']} documents have no {what}: in"
            f" dedup.survivor={config.survivor} any that has one stays before them"
        )
    if config.repeated_lines:
        cut = sum(piece.note["cut"]["bytes"] for piece in pieces)
        size = counts.made["bytes"] + cut
        counts.metrics["repeated_lines_share"] = {"value": cut / size, "n": size, "standard_error": None}
        number = sum(piece.note["cut"]["documents"] for piece in pieces)
        counts.metrics["repeated_lines_documents"] = {"value": number, "n": None, "standard_error": None}


def _clusters(files: tuple[str, ...], verdicts: Piece, counts: Counts, place: Place) -> None:
    """How many clusters of each size; members of the largest by their URLs, the one that stays first."""
    sizes = {int(size): int(number) for size, number in verdicts.note["sizes"].items()}
    counts.metrics["clusters"] = {"value": sum(sizes.values()), "n": None, "standard_error": None}
    counts.metrics["largest_cluster"] = {"value": max(sizes, default=0), "n": None, "standard_error": None}
    groups = Counter[str]()
    for size, number in sizes.items():
        groups[_group(size)] += number
    bar_plot(place, "clusters", "Clusters of duplicates, by documents in them", "documents in a cluster", dict(groups))
    rows = [tuple(row) for one in verdicts.note["largest"] for row in one["rows"]]
    found = _read(files, rows, ["id", "url"])
    shown: list[dict[str, Any]] = []
    for one in verdicts.note["largest"]:
        members = [found[tuple(row)] for row in one["rows"]]
        shown.append({"size": one["size"], "members": members})
        names = "\n".join(member["url"] or member["id"] for member in members)
        counts.samples.append({"title": f"a cluster of {one['size']} documents", "text": names})
    place.record("clusters", {"sizes": sizes, "largest": shown})


def _group(size: int) -> str:
    """2 to 9 as they are, then by powers of ten."""
    if size < 10:
        return str(size)
    low = 10 ** (len(str(size)) - 1)
    return f"{low:,} to {10 * low - 1:,}"


def _similarities(config: DedupConfig, files: tuple[str, ...], verdicts: Piece, place: Place) -> list[float]:
    """True Jaccard indexes of the sampled pairs of dropped near-duplicates and what was kept for them."""
    done = place.done("pairs")
    if done is not None:
        return done.note["similarities"]
    pairs = [(tuple(left), tuple(right)) for left, right in verdicts.note["pairs"]]
    sets = {
        where: frozenset(shingles(words(row["text"]), config.ngram))
        for where, row in _read(files, {row for pair in pairs for row in pair}, ["text"]).items()
    }
    found = [len(sets[left] & sets[right]) / max(len(sets[left] | sets[right]), 1) for left, right in pairs]
    with place.piece("pairs") as piece:
        piece.piece.note["similarities"] = found
    return found


def _precision(similarities: list[float], counts: Counts, place: Place) -> None:
    """A histogram, and the share of pairs that are truly similar."""
    number = len(similarities)
    if not number:
        return
    share = sum(value >= SIMILAR for value in similarities) / number
    error = (share * (1 - share) / number) ** 0.5
    counts.metrics["near_duplicate_precision"] = {"value": share, "n": number, "standard_error": error}
    bins = Counter(min(int(value * BINS), BINS - 1) for value in similarities)
    points = [(index / BINS, float(bins[index])) for index in range(BINS)]
    title = f"True similarity of {number} dropped near-duplicates to what was kept"
    place.plot("similarity", title, "Jaccard index, from", "pairs", {"pairs": points})


def _read(files: tuple[str, ...], rows: Iterable[Any], columns: list[str]) -> dict[Any, dict[str, Any]]:
    """Some columns of single rows; of each file only the row groups that hold them are read."""
    wanted = defaultdict[int, list[int]](list)
    for file, row in sorted(set(rows)):
        wanted[file].append(row)
    found: dict[Any, dict[str, Any]] = {}
    for file, some in wanted.items():
        fs, path = filesystem(files[file])
        with fs.open(path, "rb") as stream:
            opened, start = parquet_file(stream), 0
            for group in range(opened.num_row_groups):
                size = opened.metadata.row_group(group).num_rows
                inside = [row for row in some if start <= row < start + size]
                if inside:
                    table = opened.read_row_group(group, columns=columns).take([row - start for row in inside])
                    found |= {(file, row): one for row, one in zip(inside, table.to_pylist(), strict=True)}
                start += size
    return found
