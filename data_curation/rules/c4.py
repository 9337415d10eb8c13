"""C4's rules: lines taken out, and documents dropped for brackets, filler, bad words or too few sentences."""

import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from data_curation.rules.rule import Scores, given_file
from data_curation.settings import InputError, Settings

if TYPE_CHECKING:
    from data_curation.rules.text import Batch, Text

_CITATION = re.compile(r"\[(?:\d*|edit|citation needed)\]")
_POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_ENDS = (".", "?", "!", '"', "'")
_SCORES = {"lorem-ipsum": "lorem_ipsum_line", "curly-bracket": "curly_bracket_line"}
_MEASURES = (
    "min_line_words",
    "max_word_characters",
    "end_punctuation",
    "citations",
    "javascript",
    "policies",
    "lorem_ipsum",
    "curly_brackets",
    "bad_words",
)
_NO_SPACES = frozenset({"ja", "th", "zh"})


class C4Config(Settings):
    """C4's rules (Raffel et al. 2020, section 2.2), as FineWeb takes them: a line need not end with punctuation."""

    MEASURES: ClassVar[frozenset[str]] = frozenset(_MEASURES)

    min_line_words: int = 3
    """Lines of fewer words between spaces are taken out."""
    max_word_characters: int = 1000
    """Lines with a longer word are taken out."""
    end_punctuation: bool = False
    """Take out lines that do not end with . ? ! or a quotation mark (C4 did, FineWeb does not)."""
    citations: bool = True
    """Take out [1], [edit] and [citation needed]."""
    javascript: bool = True
    """Take out lines that speak of javascript."""
    policies: bool = True
    """Take out lines that speak of cookies, terms of use or privacy policies."""
    lorem_ipsum: bool = True
    """Drop documents with filler text."""
    curly_brackets: bool = True
    """Drop documents with a curly bracket, which most often is code."""
    min_sentences: int = 5
    """Fewest sentences of what is left."""
    bad_words: dict[str, str] = {}
    """File (path or URI, one word or phrase per line) by language: documents with one of them are dropped.
    No list comes along; docs/data.md says where C4's own are."""

    def identity(self) -> dict[str, Any]:
        """As for every section, but lists of words count by their bytes."""
        lists = {
            language: given_file(f"clean.c4.bad_words.{language}", uri) for language, uri in self.bad_words.items()
        }
        return super().identity() | {"bad_words": lists}

    def measure(self, batch: "Batch", full: bool) -> Sequence[dict[str, Any]]:
        """Sentences left, first offending lines (from 1); what is left of each text goes into the text."""
        lines = _Lines(self, batch)
        return [lines.measure(at, text) if full or text.live else {} for at, text in enumerate(batch.texts)]

    def judge(self, scores: Scores) -> str:
        """Whichever offending line comes first, then too few sentences, then bad words."""
        found = [(scores[name], reason) for reason, name in _SCORES.items() if name in scores]
        if found:
            return min(found)[1]
        if scores.get("sentences", self.min_sentences) < self.min_sentences:
            return "too-few-sentences"
        return "bad-words" if scores.get("bad_words") else ""

    def passage(self, text: "Text", reason: str) -> str:
        """The offending line or word; what was left where that is too little."""
        return text.marks.get(reason, text.left)


class _Lines:
    """Takes lines out of the texts of one batch."""

    def __init__(self, config: C4Config, batch: "Batch") -> None:
        import numpy as np

        self.config, self.batch = config, batch
        self.sentences, self.words = batch.sentences(), np.diff(batch.line_start)
        self.keep = batch.line_kept & (batch.line_chunks >= config.min_line_words)
        long = np.flatnonzero(batch.vocabulary.chunk_characters.values[batch.chunk] > config.max_word_characters)
        self.keep[np.searchsorted(batch.chunk_line, long, side="right") - 1] = False
        for index, text in enumerate(batch.texts):
            if not batch.by_chunk(index):
                short = [_longest(line) <= config.max_word_characters for line in text.lines]
                self.keep[batch.lines_of(index)] &= np.array(short, bool)

    def measure(self, index: int, text: "Text") -> dict[str, Any]:
        """Scores of one text, which gets what is left of it."""
        part = self.batch.lines_of(index)
        keep, lower = self.keep[part].tolist(), text.text.lower()
        lines = [line.strip() if kept else None for line, kept in zip(text.lines, keep, strict=True)]
        found, edited = self._edit(text, lines, lower)
        keep = [line is not None for line in lines]
        self.batch.leave(index, lines)
        sentences = int(self.sentences[part][keep].sum())
        if edited or not self.batch.by_line(index):
            sentences = sum(self.batch.sentences_of(text, line) for line in lines if line is not None)
        else:
            text.left_words = int(self.words[part][keep].sum())
        return {"sentences": sentences, **found, **self._bad_words(text, lower)}

    def _edit(self, text: "Text", lines: list[str | None], lower: str) -> tuple[dict[str, Any], bool]:
        """Edit lines and take lines out; the first offending lines, and whether a line that stays has changed."""
        config, found, edited = self.config, dict[str, Any](), False
        marks = {mark for mark in ("lorem ipsum", "{", "[", "javascript", *_POLICY) if mark in lower}
        if not (marks or config.end_punctuation):
            return found, edited
        for at, line in enumerate(lines):
            if line is None:
                continue
            if config.citations and "[" in marks:
                edited |= (cut := _CITATION.sub("", line)) != line
                lines[at] = line = cut
            ends = not config.end_punctuation or (line.endswith(_ENDS) and not line.endswith("..."))
            reason = self._reason(line.lower(), marks) if ends else "cut"
            if reason in _SCORES:
                found.setdefault(_SCORES[reason], at + 1)
                text.marks.setdefault(reason, line)
            elif reason:
                lines[at] = None
        return found, edited

    def _reason(self, lower: str, marks: set[str]) -> str:
        """Why a line is offending or taken out: the first of C4's questions that is answered with yes."""
        config = self.config
        if config.lorem_ipsum and "lorem ipsum" in marks and "lorem ipsum" in lower:
            return "lorem-ipsum"
        if config.javascript and "javascript" in marks and "javascript" in lower:
            return "javascript"
        if config.curly_brackets and "{" in marks and "{" in lower:
            return "curly-bracket"
        return "policy" if config.policies and any(mark in marks and mark in lower for mark in _POLICY) else ""

    def _bad_words(self, text: "Text", lower: str) -> dict[str, Any]:
        source = self.config.bad_words.get(text.language)
        found = _bad_words(source, text.language).search(lower) if source else None
        if found:
            text.marks["bad-words"] = text.text[max(0, found.start() - 100) : found.end() + 100]
        return {"bad_words": int(found is not None)} if source else {}


def _longest(line: str) -> int:
    return max(map(len, line.split()), default=0)


@cache
def _bad_words(source: str, language: str) -> re.Pattern[str]:
    """As datatrove's filter finds them: between characters that are not of words, where the language has spaces."""
    from data_curation.files import read_bytes

    try:
        listed = read_bytes(source).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"clean.c4.bad_words.{language}: {source} cannot be read ({error}): name a text file"
        ) from None
    words = "|".join(sorted(re.escape(word.strip().lower()) for word in listed if word.strip()))
    if not words:
        raise InputError(f"clean.c4.bad_words.{language}: {source} holds no word: leave it out")
    return re.compile(words if language in _NO_SPACES else rf"(?:\W|^)({words})(?:\W|$)")
