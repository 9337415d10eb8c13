"""datatrove's word split for one language, at a fraction of its cost for chunks between spaces."""

import re
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any, cast

from datatrove.utils.word_tokenizers import SpaCyTokenizer

# spaCy's thinc imports torch where it is installed: three seconds and 300 MB per process, for nothing used here.
_torch = cast(Any, sys.modules).setdefault("torch", None)
from spacy.tokenizer import Tokenizer  # noqa: E402

if _torch is None:
    del sys.modules["torch"]

_NEEDS = {"ja": "sudachipy", "ko": "natto", "th": "pythainlp", "vi": "pyvi", "zh": "jieba"}
"""Packages by which spaCy splits languages whose words no spaces part."""
_PLAIN = frozenset({"en", "de", "fr", "es", "it", "nl", "pt", "ru"})
"""Languages whose rules leave letters alone and part marks from them one by one: most chunks are letters and marks."""
_BEFORE, _AFTER = '(["„“«»', '.,;:!?)]"„“”«»'
_MARKED = re.compile(rf"([{re.escape(_BEFORE)}]*)(\w+(?:-[A-Za-z]+)*)([{re.escape(_AFTER)}]*)\Z")
_CORE = re.compile(r"[^\W\d_]+(?:_[^\W\d_]+)*[0-9]*\Z|[0-9]+\Z|[A-Za-z]+(?:-[A-Za-z]+)+\Z")
_LETTERS, _DOTTED = "abcdefghijklmnopqrstuvwxyz", re.compile(r"(?s:.)(?=\.)")
_HYPHENS = {frozenset({1}): "joins", frozenset({3}): "parts"}
"""What a hyphen between letters does, by the number of words it leaves."""
LONG = 1000
"""Characters of the longest chunk that spaCy's rules split: they take time quadratic in it, minutes for 200 kB of
quotation marks. A longer one, which no language has, is split into runs of letters and digits, and single marks."""
_RUNS = re.compile(r"\w+|\W")


class Words(SpaCyTokenizer):
    """The words that datatrove's filters get.

    spaCy's rules never look across a space, so the words of a text are those of its chunks. Line breaks part words as
    spaces do: a text and the same text with other line breaks have equal words.
    """

    def __init__(self, language: str) -> None:
        super().__init__(language)
        self._plain = language in _PLAIN
        self._hyphen = "odd"
        self._named, self._dots, self._faces = set[str](), set[str](), list[str]()

    @staticmethod
    @cache
    def of(language: str) -> "Words":
        """The splitter of a language (ISO 639-1); ImportError where spaCy has no rules, or its helper is missing."""
        # Only looked for: loading takes seconds for some languages, and a task may hold no document in them.
        if not language.isalpha() or find_spec(f"spacy.lang.{language}") is None:
            raise ImportError(f"spaCy has no rules for {language!r}")
        needed = _NEEDS.get(language, "spacy")
        if find_spec(needed) is None:
            raise ImportError(f"the package {needed} is not installed")
        return Words(language)

    @property
    def tokenizer(self) -> Any:
        """spaCy's pipeline of this language, loaded at its first use."""
        if self._tokenizer is None:
            with _shared_character_sets():
                loaded: Any = super().tokenizer
            if type(loaded.tokenizer) is Tokenizer:
                # Shape, likeness to a number and the like of every new word: half of the time, and never asked for.
                loaded.vocab.lex_attr_getters = {}
                self._learn(loaded.tokenizer)
        return self._tokenizer

    def _learn(self, split: Any) -> None:
        """Ask spaCy's rules what the short cut for letters between marks has to know of them."""
        marks = _BEFORE + _AFTER
        self._dots = {mark for mark in _LETTERS + _AFTER if len(split(f"wor{mark}.")) > 1 + (mark in _AFTER)}
        self._hyphen = _HYPHENS.get(frozenset(len(split(probe)) for probe in ("word-word", "word-Word", "W-w")), "odd")
        self._faces = [rule for rule in split.rules if len(rule) > 1 and not rule.strip(marks)]
        self._named = {rule.strip(marks) for rule in split.rules}

    @property
    def by_chunk(self) -> bool:
        """Whether spaces part words; a language without spaces has a splitter of its own, for whole texts."""
        return type(self.tokenizer.tokenizer) is Tokenizer

    def split(self, chunks: Iterable[str]) -> Iterator[list[str]]:
        """The words of each chunk, in order, punctuation as words of its own."""
        nlp = self.tokenizer
        split = nlp.tokenizer
        with nlp.memory_zone():
            for chunk in chunks:
                words = self._marked(chunk) if self._plain and len(chunk) <= LONG else None
                yield _by_rules(split, chunk) if words is None else words

    def _marked(self, chunk: str) -> list[str] | None:
        """The words of letters or digits between marks, where no rule of the language names them."""
        found = _MARKED.match(chunk)
        if found is None:
            return None
        before, core, after = found.groups()
        if core in self._named or not (core.isalpha() or _CORE.match(core)):
            return None
        if "." in after and not (core[-1].isalpha() and self._dots.issuperset(_DOTTED.findall(core[-1] + after))):
            return None
        if len(after) > 1 and any(face in after for face in self._faces):
            return None
        if "-" not in core:
            return [*before, core, *after]
        parts = core.split("-")
        if self._hyphen == "odd" or self.language == "fr" or any(part in self._named for part in parts):
            return None
        return [*before, *(" - ".join(parts).split() if self._hyphen == "parts" else [core]), *after]


def _by_rules(split: Any, chunk: str) -> list[str]:
    """The words of one chunk by spaCy's rules."""
    if len(chunk) > LONG:
        return _RUNS.findall(chunk)
    # A symbol of spaCy's own, which breaks it or not by what it has read before; datatrove then leaves it out. Here it
    # is a word like any other, always.
    words = [token.text for token in split(chunk.replace("IS_ALPHA", "IS_ALPHB"))]
    return [word.replace("IS_ALPHB", "IS_ALPHA") for word in words] if "IS_ALPHA" in chunk else words


@contextmanager
def _shared_character_sets() -> Generator[None]:
    """French rules name the same thousand letters in hundreds of patterns: each set is worked out once.

    Two seconds less per process. Nothing but the time depends on it, so a Python that names its compiler's parts
    otherwise goes without.
    """
    compiler: Any = getattr(re, "_compiler", None)
    work_out = getattr(compiler, "_optimize_charset", None)
    if work_out is None:
        yield
        return
    known: dict[str, Any] = {}

    def once(charset: Any, *rest: Any) -> Any:
        key = repr((charset, rest))
        if key not in known:
            known[key] = work_out(charset, *rest)
        return known[key]

    compiler._optimize_charset = once
    try:
        yield
    finally:
        compiler._optimize_charset = work_out
