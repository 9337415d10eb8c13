"""What was found of each evaluation set, and how far that can be trusted."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from data_curation.canaries import CANARIES, DECOYS, KINDS
from data_curation.contamination_cut import top
from data_curation.counts import Counts
from data_curation.decontaminate import DecontaminateConfig
from data_curation.evaluation_index import Index
from data_curation.place import Piece

RECALL = 0.9
"""A set of whose canaries a smaller share is found is warned of."""
PHRASES = 100
"""Common phrases that are named, those in the most documents first."""
Tally = dict[str, dict[str, tuple[int, int]]]


def audit(
    config: DecontaminateConfig, index: Index, items: Piece, found: list[Piece], pieces: list[Piece]
) -> dict[str, Any]:
    """Per evaluation set: its texts, what was found of them, and what canaries say of recall and false finds.

    `precision` is the share of finds that hold at least `near` of the evaluation text's words; the other finds are
    runs of `ngram` words out of a longer text, which a person should read.
    """
    phrases = common(found)
    tally = _tally(found, phrases)
    sets: dict[str, dict[str, Any]] = {}
    for name, numbers in sorted(items.note["sets"].items()):
        notes = [piece.note["sets"][name] for piece in pieces if name in piece.note["sets"]]
        finds = sum(note["finds"] for note in notes)
        kinds = sum((Counter[str](note["kinds"]) for note in notes), Counter[str]())
        sets[name] = {
            **numbers,
            "documents": sum(note["documents"] for note in notes),
            "finds": finds,
            "kinds": dict(sorted(kinds.items())),
            "common": _common_lengths(config, index, name, phrases),
            "precision": share(sum(note["similar"] for note in notes), finds),
            "recall": _shares(tally[name], CANARIES),
            "false_finds": _shares(tally[name], DECOYS),
            "top": top([row for note in notes for row in note["top"]]),
        }
    every = {kind: _sum([tally[name].get(kind, (0, 0)) for name in sets]) for kind in KINDS}
    return {
        "sets": sets,
        "recall": _shares(every, CANARIES),
        "false_finds": _shares(every, DECOYS),
        "common_phrases": [
            {"text": index.text(item)["text"], "documents": documents}
            for item, documents in sorted(phrases.items(), key=lambda pair: (-pair[1], pair[0]))[:PHRASES]
        ],
        "anchors": items.note["anchors"],
        "near": config.near,
    }


def common(found: list[Piece]) -> dict[int, int]:
    """Texts that stand whole in too many documents to tell of a leak, and that number of documents."""
    documents, limits = Counter[int](), dict[int, int]()
    for piece in found:
        for item, (number, limit) in piece.note["whole"].items():
            documents[int(item)] += number
            limits[int(item)] = limit
    return {item: number for item, number in documents.items() if number > limits[item]}


def _common_lengths(config: DecontaminateConfig, index: Index, name: str, phrases: Mapping[int, int]) -> dict[str, int]:
    """How many texts of a set were left as common phrases, shorter than an n-gram and not."""
    lengths = [len(index.words(item)[0]) for item in phrases if name in index.text(item)["sets"]]
    short = sum(length < config.ngram for length in lengths)
    return {"short": short, "long": len(lengths) - short}


def share(part: int, whole: int) -> dict[str, Any]:
    """A share with its standard error; null where there is nothing to take a share of."""
    if not whole:
        return {"value": None, "n": 0, "standard_error": None}
    value = part / whole
    return {"value": value, "n": whole, "standard_error": (value * (1 - value) / whole) ** 0.5}


def _tally(found: list[Piece], common: Mapping[int, int]) -> Tally:
    """Set -> kind -> (canaries found, planted); finds of common phrases would have stayed, so they do not count."""
    tally: Tally = defaultdict(dict)
    for piece in found:
        for name, kind, items in piece.note["canaries"]:
            hits, planted = tally[name].get(kind, (0, 0))
            tally[name][kind] = (hits + any(item not in common for item in items), planted + 1)
    return tally


def _shares(tally: dict[str, tuple[int, int]], kinds: tuple[str, ...]) -> dict[str, Any]:
    each = {kind: tally.get(kind, (0, 0)) for kind in kinds}
    return {"all": share(*_sum(list(each.values()))), **{kind: share(*pair) for kind, pair in each.items()}}


def _sum(pairs: list[tuple[int, int]]) -> tuple[int, int]:
    return sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)


def describe(report: dict[str, Any], pieces: list[Piece], counts: Counts) -> None:
    """Metrics, warnings and samples for the stage's page."""
    sets = report["sets"]
    plain = {
        "documents_cut": (sum(int(piece.note["cut"]) for piece in pieces), counts.taken["documents"]),
        "bytes_cut": (sum(int(piece.note["bytes_cut"]) for piece in pieces), None),
        "finds": (sum(numbers["finds"] for numbers in sets.values()), None),
        "evaluation_texts": (sum(numbers["texts"] for numbers in sets.values()), None),
    }
    counts.metrics |= {
        name: {"value": value, "n": number, "standard_error": None} for name, (value, number) in plain.items()
    }
    for kind, measured in report["recall"].items():
        if measured["n"]:
            counts.metrics["canary_recall" + ("" if kind == "all" else f"_{kind}")] = measured
    if report["false_finds"]["all"]["n"]:
        counts.metrics["decoys_found"] = report["false_finds"]["all"]
    similar = sum(round((one["precision"]["value"] or 0) * one["finds"]) for one in sets.values())
    if plain["finds"][0]:
        counts.metrics["precision"] = share(similar, plain["finds"][0])
    counts.warnings += _warnings(sets, plain["evaluation_texts"][0])
    counts.samples += [sample for piece in pieces for sample in piece.note["samples"]][:3]


def _warnings(sets: dict[str, dict[str, Any]], texts: int) -> list[str]:
    short = sum(int(numbers["too_short"]) for numbers in sets.values())
    warnings = [f"{short} of {texts} evaluation texts are too short to look for"] if short else []
    for name, numbers in sets.items():
        if numbers["common"]["long"]:
            warnings.append(
                f"{name}: {numbers['common']['long']} texts stand in too many documents for a leak and were left there:"
                " read common_phrases in the audit; if they are no licences, raise decontaminate.common_texts"
            )
        recall = numbers["recall"]["all"]
        if recall["n"] and recall["value"] < RECALL:
            warnings.append(
                f"{name}: {recall['value']:.2f} of {recall['n']} planted canaries were found"
                f" (standard error {recall['standard_error']:.2f}); read its finds in the audit"
            )
    return warnings
