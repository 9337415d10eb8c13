"""The datatrove step of `clean`: documents in batches through normalisation, language, rules and quality model."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from data_curation.clean import CleanConfig
from data_curation.decisions import PASSAGE, Decisions, Subject, sizes
from data_curation.engine import run_pipeline
from data_curation.language import identify
from data_curation.normalise import normalise
from data_curation.pii import PiiConfig, replace
from data_curation.place import PieceWriter
from data_curation.quality import Scorer, scorer_of
from data_curation.rules.rule import rounded
from data_curation.rules.text import Batch, Text
from data_curation.rules.vocabulary import Vocabulary
from data_curation.settings import ConfigError
from data_curation.table_steps import ReadTable, WriteTable
from data_curation.words import Words

DOCUMENTS, CHARACTERS = 256, 2**21
"""A batch ends with the document that reaches one of these: enough to spread numpy's cost, 200 MB at most for usual
documents."""


def run(config: CleanConfig, uri: str, model: str, rank: int, piece: PieceWriter) -> None:
    """Clean one file of documents into one file of documents and one of decisions."""
    decisions, name = Decisions("clean"), f"{rank:05d}.parquet"
    scorer = scorer_of(config.quality, model, piece.place.resources.device) if config.quality else None
    step = Clean(config, decisions, scorer)
    run_pipeline([ReadTable(uri), step, WriteTable(piece, name)], rank)
    decisions.write(piece, name)
    piece.piece.note |= {"languages": dict(step.languages), "changes": dict(step.changes)}


@dataclass(slots=True)
class Case:
    """One document on its way through the steps."""

    document: Document
    size: tuple[int, int]
    """Bytes and words that came in."""
    language: str = ""
    step: str = ""
    reason: str = ""
    """Why it goes: the first reason that was found."""
    passage: str = ""
    scores: dict[str, Any] = field(default_factory=dict[str, Any])

    def drop(self, step: str, reason: str, passage: str) -> None:
        """Note a reason, if it is the first."""
        if reason and not self.reason:
            self.step, self.reason, self.passage = step, reason, passage


class Clean(PipelineStep):
    """Keeps the documents that every step lets pass, and writes down what was decided about each."""

    type = "FILTER"
    name = "clean"

    def __init__(self, config: CleanConfig, decisions: Decisions, scorer: Scorer | None) -> None:
        super().__init__()
        self.config, self.decisions, self.scorer = config, decisions, scorer
        self.languages, self.changes = Counter[str](), Counter[str]()
        self.full = config.decisions == "full"
        self.vocabulary = _vocabulary(tuple((one.code, tuple(one.stop_words)) for one in config.languages))

    def run(self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Clean each document that comes."""
        for documents in _batches(data or ()):
            cases = [Case(document, sizes(document.text)) for document in documents]
            self._urls(cases)
            self._normalise(self._asked(cases))
            self._identify(self._asked(cases))
            self._judge([case for case in self._asked(cases) if case.language])
            self._score([case for case in self._asked(cases) if case.language])
            for case in cases:
                self._decide(case)
                if not case.reason:
                    yield case.document

    def _asked(self, cases: list[Case]) -> list[Case]:
        """The documents that the next step looks at."""
        return cases if self.full else [case for case in cases if not case.reason]

    def _urls(self, cases: list[Case]) -> None:
        if self.config.urls is None:
            return
        listed = self.config.urls.listed()
        for case in cases:
            url = case.document.metadata["url"]
            reason = listed.reason(url)
            case.drop("urls", reason, url)
            if self.full and reason:
                case.scores["urls"] = {"reason": reason}

    def _normalise(self, cases: list[Case]) -> None:
        for case in cases if self.config.normalise else ():
            document = case.document
            before, document.text = document.text, normalise(document.text)
            self.changes["normalised"] += before != document.text

    def _identify(self, cases: list[Case]) -> None:
        known = {language.code for language in self.config.languages}
        for case in cases:
            text = case.document.text
            code, score = identify(text[: self.config.language_characters])
            named = {"language": code, "language_score": score}
            case.document.metadata |= named
            case.scores |= named
            case.language = code if code in known else ""
            case.drop("language", self.config.language_reason(code, score), text)

    def _judge(self, cases: list[Case]) -> None:
        """Let every rule measure the documents, whose text becomes what the rules leave of it."""
        texts = [Text(case.document.text, case.language, live=not case.reason) for case in cases]
        if not texts:
            return
        batch = Batch(texts, self.vocabulary)
        for name, rule in self.config.rules():
            for case, text, scores in zip(cases, texts, rule.measure(batch, self.full), strict=True):
                if self.full:
                    case.scores[name] = rounded(scores)
                if text.live and (reason := rule.judge(scores)):
                    case.drop(name, reason, rule.passage(text, reason))
                    text.live = False
        for case, text in zip(cases, texts, strict=True):
            case.document.text = text.left

    def _score(self, cases: list[Case]) -> None:
        """Let the quality model score what the rules leave."""
        if self.config.quality is None or self.scorer is None or not cases:
            return
        for case, score in zip(cases, self.scorer([case.document.text for case in cases]), strict=True):
            case.document.metadata["quality"] = score
            case.scores["quality"] = scores = {"score": score}
            case.drop("quality", self.config.quality.judge(scores), case.document.text)

    def _replace(self, case: Case) -> None:
        if self.config.pii is None:
            return
        case.document.text, found = replace(case.document.text, self.config.pii)
        for kind, number in found.items():
            self.changes[f"pii_{kind}"] += number

    def _decide(self, case: Case) -> None:
        named = case.document.metadata
        about = Subject(case.document.id, named["url"], named["source"], named["language"], *case.size)
        if case.reason:
            # People read passages, so what is personal is masked in them, whether or not it would have been replaced.
            passage, _ = replace(case.passage[: 2 * PASSAGE], self.config.pii or PiiConfig())
            self.decisions.drop(about, case.step, case.reason, passage, **case.scores)
            return
        self._replace(case)
        self.decisions.keep(about, sizes(case.document.text), **case.scores)
        self.languages[case.language] += 1


@cache
def _vocabulary(languages: Sequence[tuple[str, Sequence[str]]]) -> Vocabulary:
    """The words that this process has met, for all of its tasks."""
    for code, _ in languages:
        try:
            Words.of(code)
        except ImportError as error:
            raise ConfigError(f"clean.languages: {error}, so words of {code!r} cannot be split; leave it out") from None
    return Vocabulary(dict(languages))


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch, size = list[Document](), 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if len(batch) == DOCUMENTS or size >= CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
