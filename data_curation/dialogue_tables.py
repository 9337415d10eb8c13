"""The published tables of one split of the dialogues, counted, and the first row of each kind for people."""

import hashlib
from collections import Counter

from data_curation.counts import Counts
from data_curation.dialogue_rows import DIALOGUES, PREFERENCES, Dialogue
from data_curation.documents import write_table
from data_curation.place import Place

NAMES = {"chat": "conversations", "task": "tasks", "preference": "preferences"}
"""What the kinds of rows are called in counts."""


def publish(place: Place, split: str, rows: list[tuple[Dialogue, int]], seed: int, counts: Counts) -> None:
    """Write one split's parts, rows as often as they are taken and in an order drawn from the seed; count them."""
    repeated = [(one, time) for one, times in rows for time in range(times)]
    drawn = sorted(repeated, key=lambda row: hashlib.sha256(f"{seed}:{row[0].id}{row[1] or ''}".encode()).digest())
    said = [one for one, _ in drawn if not one.rejected]
    preferred = [one for one, _ in drawn if one.rejected]
    if place.done(split) is None:
        with place.piece(split) as piece:
            write_table(piece, split, "00000.parquet", (one.row() for one in said), DIALOGUES)
            write_table(piece, f"{split}-preferences", "00000.parquet", (one.row() for one in preferred), PREFERENCES)
    kinds = Counter(NAMES[one.kind] for one, _ in drawn)
    counts.made.update({f"{split} {kind}": number for kind, number in sorted(kinds.items())})
    counts.made["bytes"] = counts.made.get("bytes", 0) + sum(one.size for one in said)
    if split == "train":
        _sample(said, preferred, counts)


def _sample(said: list[Dialogue], preferred: list[Dialogue], counts: Counts) -> None:
    """The first row of each kind, for a person."""
    for kind, name in NAMES.items():
        for one in [one for one in [*said, *preferred] if one.kind == kind][:1]:
            text = "\n".join(f"{message['role']}: {message['content']}" for message in one.messages)
            text += f"\nrejected: {one.rejected}" if one.rejected else ""
            counts.samples.append({"title": f"one of the {name}, from {one.source}", "text": text})
