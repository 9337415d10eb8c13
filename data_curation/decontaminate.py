"""Evaluation texts found in documents and cut out of them, with an audit of every find."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.decisions import finish
from data_curation.place import Piece, PieceWriter, Place
from data_curation.settings import InputError, Settings
from data_curation.sources.source import Source


class DecontaminateConfig(Settings):
    """Settings of `decontaminate`; evaluation texts are the parts dev and test of `dialogues`, and `evaluations`."""

    ngram: int = Field(default=13, ge=2)
    """Words in a row that a document and an evaluation text must share (GPT-3: 13)."""
    short_words: int = Field(default=6, ge=2)
    """An evaluation text of fewer words than `ngram` is looked for as a whole, from this many words on."""
    short_documents: int = Field(default=10, ge=0)
    """A short text that stands in more documents than this is a common phrase: it is audited, and stays."""
    action: Literal["cut", "drop"] = "cut"
    """`cut` takes the paragraphs of a find out of the document, `drop` the whole document."""
    min_left: float = Field(default=0.5, ge=0, le=1)
    """A document of which cutting leaves a smaller share is dropped."""
    evaluations: list[Source] = []
    """Further evaluation texts: `jsonl`, `parquet` (their field `text`) or `html` sources."""

    @model_validator(mode="after")
    def _lengths_fit(self) -> Self:
        if self.short_words > self.ngram:
            raise ValueError(
                f"decontaminate.short_words is {self.short_words}, above decontaminate.ngram ({self.ngram}): lower it"
            )
        for index, source in enumerate(self.evaluations):
            if source.fetched or source.kind == "warc":
                raise ValueError(
                    f"decontaminate.evaluations[{index}].kind is {source.kind!r}: use jsonl, parquet or html"
                )
        return self


def decontaminate(
    config: DecontaminateConfig,
    documents: Artifact,
    dialogues: Artifact,
    place: Place,
    evaluations: list[Artifact] | None = None,
) -> Counts:
    """Find evaluation texts in documents and cut them; part `audit` holds every find in readable form.

    `evaluations` are the listings of `config.evaluations`, in the same order.
    """
    from data_curation.engine import run_tasks, total
    from data_curation.evaluation_items import write_items

    files = tuple(documents.uris("documents", ".parquet"))
    if not files:
        raise InputError(f"{documents.name}: no file of documents to decontaminate")
    items = place.done("items")
    if items is None:
        with place.piece("items") as piece:
            write_items(config, dialogues, evaluations or [], piece)
        items = piece.piece
    found = run_tasks(
        place, len(files), FindTask(config, files, items), module="data_curation.contamination", prefix="finds-"
    )
    common = _common(config, found)
    pieces = run_tasks(place, len(files), CutTask(config, files, tuple(found), common))
    counts = finish(place, total(pieces), ["decontaminate"], pieces)
    summary = _audit(items, pieces, common)
    if place.done("audit") is None:
        with place.piece("audit") as piece:
            piece.send_json("audit", "sets.json", summary)
    _describe(summary, pieces, counts)
    return counts


@dataclass(frozen=True)
class FindTask:
    """One task: the places in one file of documents where an evaluation text stands."""

    config: DecontaminateConfig
    files: tuple[str, ...]
    items: Piece

    def __call__(self, rank: int, piece: PieceWriter) -> None:
        """Search file `rank`."""
        from data_curation.contamination import find

        find(self.config, self.files[rank], self.items, rank, piece)


@dataclass(frozen=True)
class CutTask:
    """One task: one file of documents in, the same without the finds out."""

    config: DecontaminateConfig
    files: tuple[str, ...]
    found: tuple[Piece, ...]
    common: frozenset[str]

    def __call__(self, rank: int, piece: PieceWriter) -> None:
        """Cut file `rank`."""
        from data_curation.contamination import cut

        cut(self.config, self.files[rank], self.found[rank], self.common, rank, piece)


def _common(config: DecontaminateConfig, found: list[Piece]) -> frozenset[str]:
    """Short texts that stand in too many documents to tell of a leak."""
    documents = Counter[str]()
    for piece in found:
        documents.update(piece.note["short"])
    return frozenset(text for text, number in documents.items() if number > config.short_documents)


def _audit(items: Piece, pieces: list[Piece], common: frozenset[str]) -> dict[str, Any]:
    """Per evaluation set: its texts, those too short to look for, and what was found of them."""
    sets: dict[str, dict[str, Any]] = {}
    for name, numbers in sorted(items.note["sets"].items()):
        sets[name] = {**numbers, "documents": sum(piece.note["documents"].get(name, 0) for piece in pieces)}
        sets[name]["finds"] = sum(piece.note["finds"].get(name, 0) for piece in pieces)
    return {"sets": sets, "common_phrases": sorted(common)}


def _describe(summary: dict[str, Any], pieces: list[Piece], counts: Counts) -> None:
    cut = sum(int(piece.note["cut"]) for piece in pieces)
    counts.metrics["documents_cut"] = {"value": cut, "n": counts.taken["documents"], "standard_error": None}
    size = sum(int(piece.note["bytes_cut"]) for piece in pieces)
    counts.metrics["bytes_cut"] = {"value": size, "n": None, "standard_error": None}
    finds = sum(int(numbers["finds"]) for numbers in summary["sets"].values())
    counts.metrics["finds"] = {"value": finds, "n": None, "standard_error": None}
    short = sum(int(numbers["too_short"]) for numbers in summary["sets"].values())
    texts = sum(int(numbers["texts"]) for numbers in summary["sets"].values())
    counts.metrics["evaluation_texts"] = {"value": texts, "n": None, "standard_error": None}
    if short:
        counts.warnings.append(f"{short} of {texts} evaluation texts are too short to look for")
    counts.samples += [sample for piece in pieces for sample in piece.note["samples"]][:3]
