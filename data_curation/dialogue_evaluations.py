"""Conversations that hold a text of an evaluation set, found as `decontaminate` finds it in documents, and dropped."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.decontaminate import DecontaminateConfig
from data_curation.dialogue_rows import Dialogue, Drops
from data_curation.evaluation_index import Index, gram_hashes, load, text_hashes
from data_curation.evaluation_items import PART, write_items
from data_curation.grams import words
from data_curation.matching import COMMON, TEXTS, Find, Matcher
from data_curation.place import Place


def decontaminated(
    config: DecontaminateConfig | None,
    evaluations: list[Artifact],
    dialogues: Sequence[Dialogue],
    place: Place,
    counts: Counts,
    drops: Drops,
) -> list[Dialogue]:
    """The conversations without an evaluation text, or a run of `ngram` words of one, in any of their turns.

    As in documents, a short text that stands in more than `common_documents` conversations is a phrase, and a longer
    one in more than `common_texts` a template: these drop none, and are counted.
    """
    if config is None:
        return list(dialogues)
    items = place.done("evaluations")
    if items is None:
        with place.piece("evaluations") as piece:
            write_items(config, Artifact("none", "", {}), evaluations, piece)
        items = piece.piece
    index = load(place, items, PART, config.anchor)
    matcher = Matcher(config, index, _anchors(index, dialogues))
    finds = [matcher.finds(words(one.text)) if matcher.suspects(one.text) else [] for one in dialogues]
    standing = Counter(item for some in finds for item in {find.item for find in some if find.kind in TEXTS})
    common = {item for item, number in standing.items() if number > matcher.limit(item)}
    kept = list[Dialogue]()
    for dialogue, some in zip(dialogues, finds, strict=True):
        if told := _told(some, common):
            drops.drop("decontaminate", f"text of {index.text(told[0].item)['sets'][0]}", dialogue)
        else:
            kept.append(dialogue)
    if common:
        counts.metrics["common evaluation texts"] = {
            "value": len(common),
            "n": len(index.texts),
            "standard_error": None,
        }
    return kept


def _told(finds: Sequence[Find], common: set[int]) -> list[Find]:
    """The finds that tell of a leak."""
    return [find for find in finds if find.kind != COMMON and find.item not in common]


def _anchors(index: Index, dialogues: Sequence[Dialogue]) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """In how many conversations each anchor stands."""
    many = np.zeros(len(index.anchors), dtype=np.int64)
    for dialogue in dialogues:
        _, anchors = index.lookup(gram_hashes([text_hashes(dialogue.text)], index.anchor).hashes)
        many[np.unique(anchors)] += 1
    return many
