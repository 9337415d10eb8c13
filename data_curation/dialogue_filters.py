"""Conversations dropped for their language, or for replies that run in circles."""

from collections.abc import Iterator, Sequence
from itertools import islice, pairwise

import numpy as np

from data_curation.dedup_shingles import hash_texts
from data_curation.dialogue_rows import Dialogue, Drops
from data_curation.dialogues import DialoguesConfig
from data_curation.language import identify

BATCH = 256
"""Conversations measured together: enough to spread numpy's cost."""
RUN = 5
"""Words of a run whose return is a repetition, the shortest of Gopher's rules for repeated runs (table A1)."""


def filtered(config: DialoguesConfig, dialogues: Iterator[Dialogue], drops: Drops) -> Iterator[Dialogue]:
    """The conversations that pass, in order."""
    while batch := list(islice(dialogues, BATCH)):
        repeated = _repeated(config, batch)
        for dialogue, circles in zip(batch, repeated, strict=True):
            if reason := _language(config, dialogue) or ("repetition" if circles else ""):
                drops.drop("filter", reason, dialogue)
            else:
                yield dialogue


def _language(config: DialoguesConfig, dialogue: Dialogue) -> str:
    """Why a conversation in its language goes, or nothing."""
    if not config.languages:
        return ""
    code, score = identify(dialogue.text[: config.language_characters])
    least = next((language.score for language in config.languages if language.code == code), None)
    if least is None:
        return f"language-{code}"
    return "language-unsure" if score < least else ""


def _repeated(config: DialoguesConfig, batch: Sequence[Dialogue]) -> list[bool]:
    """Whether a larger share of the replies' runs of words than `repetition` stood in them before."""
    if not config.repetition:
        return [False] * len(batch)
    hashed = hash_texts([_replies(dialogue) for dialogue in batch], RUN)
    found = list[bool]()
    for start, end in pairwise(hashed.starts.astype(np.int64).tolist()):
        runs = hashed.shingles[start:end]
        again = len(runs) - len(np.unique(runs))
        found.append(len(runs) + RUN > config.repetition_words and again > config.repetition * len(runs))
    return found


def _replies(dialogue: Dialogue) -> str:
    """What is learnt: all that the assistant says, the rejected reply too."""
    return "\n".join(filter(None, (dialogue.answered, dialogue.rejected)))
