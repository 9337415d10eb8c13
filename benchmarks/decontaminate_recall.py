"""Recall of decontamination by share of edited words, beside datatrove's 12-gram filter."""

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.measure import Row, row
from data_curation.grams import words

EDITS = (0.0, 0.05, 0.1, 0.2, 0.3)
PLANTED = 300
Records = list[dict[str, str]]


def peer(sets: dict[str, Records]) -> Callable[[str], bool]:
    """Whether datatrove's 12-gram filter would drop a text; its index is made of the same texts."""
    from datatrove.data import Document
    from datatrove.pipeline.decont.n_grams import NGramsDecontFilter
    from datatrove.utils.text import ngrams, simplify_text

    stock: Any = NGramsDecontFilter(tempfile.gettempdir())
    size = stock.config.n_grams
    index: dict[Any, str] = {}
    for name, records in sets.items():
        for record in records:
            listed = stock.tokenizer.word_tokenize(simplify_text(" ".join(record.values()), stock.config.norm_config))
            index |= dict.fromkeys((stock.hash_func(gram) for gram in map(" ".join, ngrams(listed, size))), name)
    stock._index_hashes = index  # its indexer needs lighteval

    def flagged(text: str) -> bool:
        return stock.filter(Document(text=text, id="")) is not True

    return flagged


def recall(
    sets: dict[str, Records], hosts: Sequence[str], ours: Callable[[str], bool], theirs: Callable[[str], bool]
) -> Iterator[Row]:
    """Texts planted in pages that both sides find clean: the share that each finds, by share of edited words."""
    clean = [text for text in hosts if not ours(text) and not theirs(text)]
    for name_of_set in ("questions", "articles", "pages"):
        texts = ["\n".join(one.values()) for one in sets.get(name_of_set, [])]
        texts = [text for text in texts if len(words(text)) >= 6]
        draw = random.Random(f"recall {name_of_set}")
        chosen = draw.sample(texts, min(PLANTED, len(texts)))
        for share in EDITS if chosen else ():
            planted = [f"{draw.choice(clean)}\n\n{edited(text, share, draw)}" for text in chosen]
            hits = sum(map(ours, planted)) / len(planted)
            peer_hits = sum(map(theirs, planted)) / len(planted)
            name = f"recall, {name_of_set}, {share:.0%} of the words edited"
            error = (hits * (1 - hits) / len(planted)) ** 0.5
            yield row(name, hits, peer_hits, "share") | {"n": len(planted), "standard_error": error}


def edited(text: str, share: float, draw: random.Random) -> str:
    """A share of the words, at least one if any, swapped for another of the text, doubled by one, or left out."""
    listed = words(text)
    other = [[word] for word in listed]
    for place in draw.sample(range(len(listed)), max(1, round(share * len(listed))) if share else 0):
        other[place] = draw.choice([[draw.choice(listed)], [draw.choice(listed), listed[place]], []])
    return " ".join(word for some in other for word in some)
