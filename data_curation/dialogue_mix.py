"""How much of each chat source is taken: its limit, and the sources' weights."""

from collections.abc import Sequence
from itertools import accumulate

from data_curation.counts import Counts
from data_curation.dialogue_rows import Dialogue, Drops
from data_curation.sources.source import Source

KINDS = {"chat": "", "task": "tasks of ", "preference": "preferences of "}
"""Kinds of rows, and how the passes over them are called."""


def taken(sources: Sequence[Source], dialogues: Sequence[Dialogue], drops: Drops) -> list[list[Dialogue]]:
    """What each source gives by its `limit`: the rows of any kind with the smallest ids, in order.

    Ids are hashes, so this is an even sample, and a smaller one lies within a larger one.
    """
    found = list[list[Dialogue]]()
    for source in sources:
        kept = sorted((one for one in dialogues if one.source == source.name), key=lambda one: one.id)
        for dialogue in kept[source.limit :] if source.limit else []:
            drops.drop("limit", f"over the limit of {source.name}", dialogue)
        found.append(kept[: source.limit])
    return found


def mixed(
    sources: Sequence[Source], rows: Sequence[list[Dialogue]], most: float, counts: Counts, drops: Drops
) -> list[tuple[Dialogue, int]]:
    """What is taken of the sources' rows, and how often: conversations, tasks and preference records each among
    themselves.

    Tasks come once at most: who learns from them (`pairs`, `reinforce`) goes over them as often as it is set to.
    """
    found = list[tuple[Dialogue, int]]()
    for name in KINDS:
        kind = [[one for one in some if one.kind == name] for some in rows]
        found += _mixed(name, sources, kind, min(most, 1.0) if name == "task" else most, counts, drops)
    return found


def _mixed(
    kind: str, sources: Sequence[Source], rows: Sequence[list[Dialogue]], most: float, counts: Counts, drops: Drops
) -> list[tuple[Dialogue, int]]:
    """Rows of one kind and how often each is taken, so that the sources' bytes are in the relations of their weights.

    The source that has the fewest bytes for its weight is passed over `most` times, the others less often: a part of a
    pass takes the smallest ids. Without weights every source is passed over once.
    """
    sizes = [sum(one.size for one in some) for some in rows]
    there = [(source, some, size) for source, some, size in zip(sources, rows, sizes, strict=True) if some]
    if not any(source.weight for source in sources):
        return [(one, 1) for some in rows for one in some]
    full = min((size * most / (source.weight or 1.0) for source, _, size in there), default=0.0)
    found = list[tuple[Dialogue, int]]()
    for source, some, size in there:
        passes = full * (source.weight or 1.0) / size
        whole, part = int(passes + 1e-9), (passes % 1) * size if passes % 1 > 1e-9 else 0.0
        for one, end in zip(some, accumulate(one.size for one in some), strict=True):
            times = whole + (end <= part + 1e-6)
            if times:
                found.append((one, times))
            else:
                drops.drop("mix", f"over the weight of {source.name}", one)
        name = f"passes over {KINDS[kind]}{source.name}"
        counts.metrics[name] = {"value": passes, "n": len(some), "standard_error": None}
    return found
