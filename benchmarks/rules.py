"""Language identification and the heuristic rules, beside datatrove's filters on the same texts."""

from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

from datatrove.data import Document

from benchmarks import stock
from benchmarks.measure import Row, in_turns, parts, row
from benchmarks.pages import language_of
from data_curation.clean import CleanConfig
from data_curation.language import identify, usual
from data_curation.rules.text import Batch, Text
from data_curation.rules.vocabulary import Vocabulary

GOAL_LANGUAGE, GOAL_ACCURACY, GOAL_RULES, GOAL_SAME = 2_500.0, 0.995, 1_000.0, 0.99
CHUNK = 250
WARM = 64
Texts = list[tuple[str, str]]
"""URL and text."""


def languages(texts: Texts) -> tuple[list[Row], dict[str, Any]]:
    """Speed, and accuracy on pages whose package is in one language."""
    characters = CleanConfig().language_characters
    theirs = stock.PackagedLanguageFilter()
    found: dict[str, list[str]] = {"ours": [], "stock": []}

    def ours(some: Texts) -> None:
        found["ours"] += [identify(text[:characters])[0] for _, text in some]

    def other(some: Texts) -> None:
        documents = [Document(text, url) for url, text in some]
        for document in documents:
            theirs.filter(document)
        found["stock"] += [str(document.metadata["language"]) for document in documents]

    for side in (ours, other):
        side(texts[:1])  # the model is loaded
    found = {"ours": [], "stock": []}
    spent = in_turns({"ours": ours, "stock": other}, parts(texts, CHUNK))
    truth = [language_of(url) for url, _ in texts]
    known = [index for index, code in enumerate(truth) if code]
    right = {name: sum(codes[index] == truth[index] for index in known) / len(known) for name, codes in found.items()}
    same = sum(map(str.__eq__, found["ours"], found["stock"])) / len(texts)
    wrong = Counter(
        f"{truth[index]} as {found['ours'][index]}" for index in known if found["ours"][index] != truth[index]
    )
    rows = [
        row("language id", len(texts) / spent["ours"], len(texts) / spent["stock"], "texts/s", GOAL_LANGUAGE),
        row("language id: accuracy by package", right["ours"], right["stock"], "", GOAL_ACCURACY),
    ]
    return rows, {
        "language id: texts whose package tells the language": len(known),
        "language id: share with stock's language": same,
        "language id: wrong most often": dict(wrong.most_common(5)),
    }


def heuristics(texts: Texts) -> tuple[list[Row], dict[str, Any]]:
    """All rules together on English texts: speed, equal decisions, equal reasons, equal texts of what stays."""
    found: dict[str, list[tuple[str, str]]] = {"ours": [], "stock": []}
    sides: dict[str, Callable[[Texts], None]] = {
        "ours": lambda some: found["ours"].extend(ours(some)),
        "stock": lambda some: found["stock"].extend(theirs(some)),
    }
    for side in sides.values():
        side(texts[:WARM])  # word splitters are loaded, words are new to both
    found["ours"], found["stock"] = [], []
    spent = in_turns(sides, parts(texts, CHUNK))
    pairs = list(zip(found["ours"], found["stock"], strict=True))
    same = sum(bool(own[0]) == bool(other[0]) for own, other in pairs) / len(pairs)
    dropped = [(own[0], other[0]) for own, other in pairs if own[0] and other[0]]
    stay = [(own[1].split(), other[1].split()) for own, other in pairs if not own[0] and not other[0]]
    apart = Counter(
        f"ours {own[0] or 'keeps'}, stock {other[0] or 'keeps'}"
        for own, other in pairs
        if bool(own[0]) != bool(other[0])
    )
    rows = [
        row("rules", len(texts) / spent["ours"], len(texts) / spent["stock"], "texts/s", GOAL_RULES),
        row("rules: share with stock's decision", same, None, "", GOAL_SAME),
    ]
    return rows, {
        "rules: English texts": len(texts),
        "rules: kept": {name: sum(not reason for reason, _ in some) for name, some in found.items()},
        "rules: decisions that differ": dict(apart.most_common()),
        "rules: dropped by both in the same step": sum(own.split()[0] == other.split()[0] for own, other in dropped)
        / max(1, len(dropped)),
        "rules: kept by both with the same words": sum(own == other for own, other in stay) / max(1, len(stay)),
    }


def ours(some: Texts) -> list[tuple[str, str]]:
    """Reason (empty: kept) and what is left of each text, by the step of `clean` with nothing but rules."""
    config, vocabulary = _config()
    texts = [Text(text, "en") for _, text in some]
    batch = Batch(texts, vocabulary)
    reasons = [""] * len(texts)
    for name, rule in config.rules():
        for index, scores in enumerate(rule.measure(batch, False)):
            if texts[index].live and (reason := rule.judge(scores)):
                reasons[index], texts[index].live = f"{name} {reason}", False
    return [(reason, text.left) for reason, text in zip(reasons, texts, strict=True)]


def theirs(some: Texts) -> list[tuple[str, str]]:
    """The same by datatrove's filters."""
    names = ("repetition", "gopher", "c4", "fineweb")
    steps = _stock_rules()
    made: list[tuple[str, str]] = []
    for url, text in some:
        document, reason = Document(text, url), ""
        for name, step in zip(names, steps, strict=True):
            verdict = step.filter(document)
            if verdict is not True:
                reason = f"{name} {verdict[1] if isinstance(verdict, tuple) else ''}"
                break
        made.append((reason, document.text))
    return made


@cache
def _config() -> tuple[CleanConfig, Vocabulary]:
    english = [one for one in usual() if one.code == "en"]
    return CleanConfig(languages=english), Vocabulary({one.code: one.stop_words for one in english})


@cache
def _stock_rules() -> list[Any]:
    return stock.rules()
