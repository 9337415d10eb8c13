"""Makes tokenizers from generated documents, for tests."""

from pathlib import Path

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.place import Place
from data_curation.tokenizer import TokenizerConfig, tokenizer
from tests.data_curation.corpus import new_place

CONFIG = TokenizerConfig(vocab_size=400)

Trained = tuple[Path, Counts]
"""Folder and counts of a tokenizer."""


def made(home: Path, config: TokenizerConfig, given: Artifact) -> tuple[Path, Counts, Place]:
    """The folder that the stage published, its counts and its place."""
    place = new_place(home)
    counts = tokenizer(config, given, place)
    return Path(place.home) / "tokenizer", counts, place
