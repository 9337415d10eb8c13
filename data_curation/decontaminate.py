"""Evaluation texts found in documents and cut out of them, with an audit of every find."""

from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.decisions import finish
from data_curation.place import Piece, PieceWriter, Place
from data_curation.settings import InputError, Settings
from data_curation.sources.source import Source


class ItemFields(Settings):
    """Which fields of an evaluation record hold its texts; of several names the first that a record has counts."""

    text: list[str] = ["text", "passage", "context"]
    """Texts for themselves; every one of them that a record has is looked for."""
    question: list[str] = ["question", "prompt", "problem", "instruction"]
    """A question: looked for alone, and together with its answer where both are short."""
    answer: list[str] = ["answer", "answers", "solution", "completion", "target", "answerKey"]
    """Its answer: a string, a list of them, or the number, letter or label of a choice."""
    choices: list[str] = ["choices", "options"]
    """What the answer is chosen from: looked for behind the question."""


class DecontaminateConfig(Settings):
    """Settings of `decontaminate`; evaluation texts are the parts dev and test of `dialogues`, and `evaluations`."""

    ngram: int = Field(default=13, ge=2)
    """Words in a row that a document and an evaluation text must share (GPT-3: 13)."""
    near: float = Field(default=0.8, gt=0, le=1)
    """Share of an evaluation text's words that must stand in order in a document, others between them or not; of texts
    shorter than `ngram` half as many may be missing. 1: only unedited texts are found."""
    anchor: int = Field(default=5, ge=2)
    """Words in a row, unedited, by which a document is suspected to hold an evaluation text."""
    short_words: int = Field(default=6, ge=2)
    """Words of the shortest evaluation text that is looked for; a shorter one only together with its answer."""
    common_documents: int = Field(default=10, ge=0)
    """What stands in more documents than this is a common phrase: a text shorter than `ngram`, or a run of words all of
    whose anchors do. It is audited, and stays."""
    common_texts: int = Field(default=100, ge=0)
    """A longer text that stands whole in more documents than this is a licence or the like: it stays, audited."""
    action: Literal["cut", "drop"] = "cut"
    """`cut` takes the paragraphs of a find out of the document, `drop` the whole document."""
    min_left: float = Field(default=0.5, ge=0, le=1)
    """A document of which cutting leaves a smaller share is dropped."""
    canaries: int = Field(default=200, ge=0)
    """Texts of each evaluation set that are planted in copies of documents to measure what is found; 0: none."""
    seed: int = 0
    """Draws the canaries and their documents."""
    evaluations: list[Source] = []
    """Further evaluation texts: `jsonl`, `parquet` or `html` sources."""
    fields: ItemFields = ItemFields()
    """The fields of their records."""
    set_fields: dict[str, ItemFields] = {}
    """The same for single sources, by their names."""

    @model_validator(mode="after")
    def _lengths_fit(self) -> Self:
        if self.short_words > self.ngram:
            raise ValueError(
                f"decontaminate.short_words is {self.short_words}, above decontaminate.ngram ({self.ngram}): lower it"
            )
        if self.anchor > self.short_words:
            raise ValueError(
                f"decontaminate.anchor is {self.anchor}, above decontaminate.short_words ({self.short_words}): lower it"
            )
        for index, source in enumerate(self.evaluations):
            if source.kind not in ("jsonl", "parquet", "html"):
                raise ValueError(
                    f"decontaminate.evaluations[{index}].kind is {source.kind!r}: use jsonl, parquet or html"
                )
        names = {source.name for source in self.evaluations}
        for name in self.set_fields:
            if name not in names:
                raise ValueError(
                    f"decontaminate.set_fields names {name!r}, which is none of decontaminate.evaluations: correct it"
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

    `evaluations` are the listings of `config.evaluations`, in the same order. Documents are read three times: for the
    anchors in them, then those with rare anchors for finds (and canaries, in copies), then to be cut.
    """
    from data_curation.contamination import anchor_documents, canary_hosts
    from data_curation.contamination_report import audit, common, describe
    from data_curation.engine import run_tasks, total
    from data_curation.evaluation_index import load
    from data_curation.evaluation_items import PART, write_items

    files = tuple(documents.uris("documents", ".parquet"))
    if not files:
        raise InputError(f"{documents.name}: no file of documents to decontaminate")
    many = sum(file.rows or 0 for file in documents.part("documents").files)
    items = place.done("items")
    if items is None:
        with place.piece("items") as piece:
            write_items(config, dialogues, evaluations or [], piece)
        items = piece.piece
    module = "data_curation.contamination"
    hits = run_tasks(place, len(files), HitTask(config, files, items, many), module=module, prefix="hits-")
    anchors = place.done("anchors")
    if anchors is None:
        with place.piece("anchors") as piece:
            anchor_documents(items, hits, piece)
        anchors = piece.piece
    search = FindTask(config, files, items, anchors, tuple(hits), canary_hosts(config, hits))
    found = run_tasks(place, len(files), search, module=module, prefix="finds-")
    phrases = frozenset(common(found))
    pieces = run_tasks(place, len(files), CutTask(config, files, items, tuple(found), phrases), module=module)
    counts = finish(place, total(pieces), ["decontaminate"], pieces)
    report = audit(config, load(place, items, PART, config.anchor), items, found, pieces)
    if place.done("audit") is None:
        with place.piece("audit") as piece:
            piece.send_json("audit", "sets.json", report)
    place.record("contamination", report)
    describe(report, pieces, counts)
    return counts


@dataclass(frozen=True)
class HitTask:
    """One task: which anchors of evaluation texts stand in which documents of one file."""

    config: DecontaminateConfig
    files: tuple[str, ...]
    items: Piece
    documents: int
    """Documents in all files."""

    def __call__(self, rank: int, piece: PieceWriter) -> None:
        """Look file `rank` through."""
        from data_curation.contamination import hit

        hit(self.config, self.files[rank], self.items, self.documents, rank, piece)


@dataclass(frozen=True)
class FindTask:
    """One task: the places in one file of documents where an evaluation text stands, and what canaries show."""

    config: DecontaminateConfig
    files: tuple[str, ...]
    items: Piece
    anchors: Piece
    hits: tuple[Piece, ...]
    hosts: tuple[tuple[int, int], ...]
    """File and row of each document in a copy of which canaries are planted."""

    def __call__(self, rank: int, piece: PieceWriter) -> None:
        """Search file `rank`."""
        from data_curation.contamination import find

        find(self, rank, piece)


@dataclass(frozen=True)
class CutTask:
    """One task: one file of documents in, the same without the finds out."""

    config: DecontaminateConfig
    files: tuple[str, ...]
    items: Piece
    found: tuple[Piece, ...]
    common: frozenset[int]
    """Texts that stand in too many documents to tell of a leak."""

    def __call__(self, rank: int, piece: PieceWriter) -> None:
        """Cut file `rank`."""
        from data_curation.contamination_cut import cut

        cut(self, rank, piece)
