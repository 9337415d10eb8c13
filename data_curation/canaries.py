"""Evaluation texts planted in copies of documents, to measure what the matcher finds and what it takes for one."""

import heapq
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import xxhash

from data_curation.decontaminate import DecontaminateConfig
from data_curation.grams import placed_words, words

if TYPE_CHECKING:
    from data_curation.matching import Matcher

CANARIES = ("verbatim", "edited", "recased", "split")
"""As it is; one word in ten changed, put in or left out; other case and punctuation; over many lines."""
DECOYS = ("other", "reordered")
"""A text that the matcher does not know (finds of the same record do not count); its words three by three from the end
to the beginning."""
KINDS = CANARIES + DECOYS
RARE = -1
"""Stands for a find that no number of documents makes a common phrase."""


def chosen(config: DecontaminateConfig, rows: Sequence[dict[str, Any]]) -> dict[str, list[int]]:
    """For each set the numbers of the texts to plant, drawn by their own bytes and the seed."""
    sets: dict[str, list[tuple[int, int]]] = {}
    for number, row in enumerate(rows):
        for name in row["sets"]:
            draw = xxhash.xxh3_64_intdigest(f"{config.seed} {name} {row['text']}".encode(errors="replace"))
            sets.setdefault(name, []).append((draw, number))
    return {name: [number for _, number in heapq.nsmallest(config.canaries, some)] for name, some in sets.items()}


def trials(
    config: DecontaminateConfig, matcher: "Matcher", plan: dict[str, list[int]], text: str, host: int, hosts: int
) -> Iterator[tuple[str, str, list[int]]]:
    """Plant in copies of document number `host` the canaries of every set that belong there.

    Gives (set, kind, what was found there: numbers of texts, or `RARE`) for each; nothing of the copies is kept.
    """
    for name, items in sorted(plan.items()):
        for number in range(host, config.canaries, hosts):
            again, place = divmod(number, len(items))
            item, kind = items[place], KINDS[(place + again) % len(KINDS)]
            draw = random.Random(f"{config.seed} {name} {number}")
            yield name, kind, _found(matcher, name, kind, item, text, draw)


def _found(matcher: "Matcher", name: str, kind: str, item: int, text: str, draw: random.Random) -> list[int]:
    planted = altered(kind, matcher.index.text(item)["text"], words(text), draw)
    copy, start, end = plant(text, planted, draw)
    listed, places = placed_words(copy)
    found: set[int] = set()
    for one in matcher.finds(listed):
        middle = places[(one.start + one.end) // 2][0]  # what stands beside the canary may reach into it
        if one.kind == "common" or not start <= middle < end:
            continue
        if kind in CANARIES and name not in matcher.index.text(one.item)["sets"]:
            continue
        if kind == "other" and _related(matcher, item, one.item):
            continue
        found.add(RARE if one.kind == "run" else one.item)
    return sorted(found)


def _related(matcher: "Matcher", one: int, other: int) -> bool:
    """Whether two evaluation texts come from one record, or from two with the same text."""
    return one == other or bool(
        set(matcher.index.text(one)["records"]).intersection(matcher.index.text(other)["records"])
    )


def altered(kind: str, text: str, others: Sequence[str], draw: random.Random) -> str:
    """The text as a canary or decoy of that kind; words put in are drawn from `others`."""
    if kind == "edited":
        return " ".join(_edited(words(text), others or ["and"], draw))
    if kind == "recased":
        signs = [", ", " ", " - ", "; ", " (", ") ", ' "', ": ", " / "]
        return "".join(draw.choice([str.upper, str.title, str])(word) + draw.choice(signs) for word in words(text))
    if kind == "split":
        return "".join(word + draw.choice(["\n", " ", "  "]) for word in text.split())
    if kind == "reordered":
        listed = words(text)
        return " ".join(word for start in range(0, len(listed), 3)[::-1] for word in listed[start : start + 3])
    return text


def _edited(listed: list[str], others: Sequence[str], draw: random.Random) -> list[str]:
    """One word in ten, at least one, is replaced, preceded by another, or left out."""
    edited = [[word] for word in listed]
    for place in draw.sample(range(len(listed)), max(1, len(listed) // 10)):
        edited[place] = draw.choice([[draw.choice(others)], [draw.choice(others), listed[place]], []])
    return [word for some in edited for word in some]


def plant(text: str, planted: str, draw: random.Random) -> tuple[str, int, int]:
    """A copy of the text with one more paragraph, and the first and last place of it in characters."""
    paragraphs = text.split("\n\n")
    place = draw.randrange(len(paragraphs) + 1)
    before = "".join(paragraph + "\n\n" for paragraph in paragraphs[:place])
    after = "".join("\n\n" + paragraph for paragraph in paragraphs[place:])
    return before + planted + after, len(before), len(before) + len(planted)
