"""Conversations dropped for their language, or for replies that repeat themselves, by the rules of `clean`."""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING

from data_curation.dialogue_rows import Dialogue, Drops
from data_curation.dialogues import DialoguesConfig
from data_curation.language import identify
from data_curation.rules.repetition import RepetitionConfig

if TYPE_CHECKING:
    from data_curation.rules.vocabulary import Vocabulary

BATCH = 256
"""Conversations measured together: enough to spread numpy's cost."""


def filtered(config: DialoguesConfig, dialogues: Iterator[Dialogue], drops: Drops) -> Iterator[Dialogue]:
    """The conversations that pass, in order."""
    while batch := list(islice(dialogues, BATCH)):
        reasons = _languages(config, batch)
        for index, reason in _repetitions(config, batch):
            reasons[index] = reasons[index] or reason
        for dialogue, reason in zip(batch, reasons, strict=True):
            if reason:
                drops.add("filter", reason, dialogue.size)
            else:
                yield dialogue


def _languages(config: DialoguesConfig, batch: Sequence[Dialogue]) -> list[str]:
    if not config.languages:
        return [""] * len(batch)
    least = {language.code: language.score for language in config.languages}
    found = list[str]()
    for dialogue in batch:
        code, score = identify(dialogue.text[: config.language_characters])
        unsure = code in least and score < least[code]
        found.append("language-unsure" if unsure else "" if code in least else f"language-{code}")
    return found


def _repetitions(config: DialoguesConfig, batch: Sequence[Dialogue]) -> list[tuple[int, str]]:
    """Places in the batch, and reasons, of conversations whose replies repeat themselves."""
    if not config.repetition:
        return []
    replies = [_replies(dialogue) for dialogue in batch]
    long = [index for index, text in enumerate(replies) if len(text.split()) >= config.repetition_words]
    if not long:
        return []
    from data_curation.rules.text import Batch, Text

    # English rules split words of any language by spaces and marks, which is all that repetition needs.
    texts = [Text(replies[index], "en") for index in long]
    rule = RepetitionConfig.model_validate(dict.fromkeys(RepetitionConfig.model_fields, config.repetition))
    scores = rule.measure(Batch(texts, _vocabulary()), full=False)
    judged = [(index, rule.judge(one)) for index, one in zip(long, scores, strict=True)]
    return [(index, f"repetition-{reason}") for index, reason in judged if reason]


def _replies(dialogue: Dialogue) -> str:
    """What is learnt: all that the assistant says, the rejected reply too."""
    said = [turn["content"] for turn in dialogue.messages if turn["role"] == "assistant"]
    return "\n\n".join([*said, dialogue.rejected] if dialogue.rejected else said)


@cache
def _vocabulary() -> "Vocabulary":
    from data_curation.rules.vocabulary import Vocabulary

    return Vocabulary({"en": ()})
