"""The survivors of one file of documents, their signatures for the index, and what was decided about each."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from data_curation.decisions import Decisions, Subject, sizes
from data_curation.dedup import DedupConfig
from data_curation.dedup_columns import read_piece, with_metadata, write_columns
from data_curation.dedup_index import INDEX, about
from data_curation.dedup_verdicts import REASONS
from data_curation.documents import DOCUMENTS, read_rows, write_table
from data_curation.place import Piece, PieceWriter


def keep(
    config: DedupConfig, uri: str, rank: int, repeated: tuple[str, ...], older: tuple[str, ...], piece: PieceWriter
) -> None:
    """Write the survivors of one file of documents, their signatures for the index, and all decisions.

    `repeated` is the table of repeated lines, if any are to be cut; `older` names the indexes that were looked into.
    """
    name, decisions = f"{rank:05d}.parquet", Decisions("dedup")
    verdicts = read_piece(piece.place, "clusters", "work/verdicts", name)
    piece.piece.note["cut"] = {"documents": 0, "bytes": 0}

    def survivors() -> Iterator[dict[str, Any]]:
        for row, verdict in zip(read_rows(uri), verdicts.to_pylist(), strict=True):
            subject = Subject.of(row)
            if verdict["code"]:
                step, reason = REASONS[verdict["code"]]
                decisions.drop(subject, step, reason, **_scores(verdict))
            elif not repeated:
                decisions.keep(subject)
                yield row
            else:
                yield from _without_lines(config, row, subject, repeated[0], decisions, piece.piece)

    write_table(piece, "documents", name, survivors(), DOCUMENTS)
    decisions.write(piece, name)
    stay = [not row["reason"] for row in decisions.rows]
    signed = read_piece(piece.place, f"signatures-{rank:05d}", "work/signatures", name)
    bands = [column for column in signed.column_names if column.startswith("band")]
    index = signed.select([*INDEX, *bands]).filter(pa.array(stay, pa.bool_()))
    write_columns(piece, "index", name, with_metadata(index, about(config) | {"beside": list(older)}))


def _scores(verdict: dict[str, Any]) -> dict[str, Any]:
    """What a decision says beside its reason; a blocked document was dropped for no other one."""
    if REASONS[verdict["code"]][0] == "blocked":
        return {}
    similarity = verdict["similarity"]
    return {"kept": verdict["kept"].hex()} | ({} if similarity is None else {"similarity": round(similarity, 3)})


def _without_lines(
    config: DedupConfig, row: dict[str, Any], subject: Subject, repeated: str, decisions: Decisions, piece: Piece
) -> Iterator[dict[str, Any]]:
    from data_curation.dedup_lines import cut_lines

    cut = cut_lines(row["text"], row["id"], repeated, config.line_words)
    if not cut.bytes:
        decisions.keep(subject)
        yield row
        return
    piece.note["cut"]["documents"] += 1
    piece.note["cut"]["bytes"] += cut.bytes
    if not cut.text:
        decisions.drop(subject, "lines", "repeated-lines", row["text"])
    else:
        decisions.keep(subject, sizes(cut.text), bytes_cut=cut.bytes)
        yield row | {"text": cut.text}
