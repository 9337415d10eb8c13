"""datatrove's word split for one language, each distinct chunk between spaces split once."""

import sys
from functools import cache
from importlib.util import find_spec
from itertools import chain
from typing import Any, cast

from datatrove.utils.word_tokenizers import SpaCyTokenizer, strip_strings

# spaCy's thinc imports torch where it is installed: three seconds and 300 MB per process, for nothing used here.
_torch = cast(Any, sys.modules).setdefault("torch", None)
from spacy.tokenizer import Tokenizer  # noqa: E402

if _torch is None:
    del sys.modules["torch"]

CHUNKS = 500_000
"""Chunks remembered per language and process, about 100 MB."""


class Words(SpaCyTokenizer):
    """The words that datatrove's filters get, in a fifth of the time.

    spaCy's rules never look across a space, so the words of a text are those of its chunks, and most chunks come
    again. Line breaks part words as spaces do: a text and the same text with other line breaks have equal words.
    """

    def __init__(self, language: str) -> None:
        super().__init__(language)
        self.known: dict[str, list[str]] = {}

    @staticmethod
    @cache
    def of(language: str) -> "Words":
        """The splitter of a language (ISO 639-1); ImportError where spaCy has no rules for it."""
        # Only looked for: loading takes seconds for some languages, and a task may hold no document in them.
        if not language.isalpha() or find_spec(f"spacy.lang.{language}") is None:
            raise ImportError(f"spaCy has no rules for {language!r}")
        return Words(language)

    def word_tokenize(self, text: str) -> list[str]:
        """Words of the text, in order, punctuation as words of its own."""
        if type(self.tokenizer.tokenizer) is not Tokenizer:  # a language without spaces has a splitter of its own
            return super().word_tokenize(text)
        chunks = text.split()
        fresh = {chunk for chunk in chunks if chunk not in self.known}
        if fresh:
            if len(self.known) + len(fresh) > CHUNKS:
                self.known.clear()
                fresh = set(chunks)
            self._learn(fresh)
        return list(chain.from_iterable(map(self.known.__getitem__, chunks)))

    def _learn(self, chunks: set[str]) -> None:
        self.tokenizer.max_length = max(map(len, chunks)) + 10
        with self.tokenizer.memory_zone():
            for chunk in chunks:
                self.known[chunk] = strip_strings([token.text for token in self.tokenizer.make_doc(chunk)])
