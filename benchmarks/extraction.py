"""Main-text extraction beside trafilatura and resiliparse: precision and recall on labelled pages, speed."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, in_turns, parts, row
from benchmarks.pages import Page, labelled_pages

GRAM = 4
LOST = 0.5
"""Recall below which a page has lost its body."""
CHUNK, ROUNDS = 60, 5
"""Pages of one turn, and how often all pages are read: the labelled ones are few."""
GOAL_F1, GOAL_LABELLED, GOAL_RATIO, GOAL_PAGES = 0.943, 560.0, 8.0, 600.0


def grams(text: str) -> Counter[tuple[str, ...]]:
    """Runs of four words with their counts; a shorter text is one run."""
    words = re.findall(r"\w+", text)
    return Counter(tuple(words[at : at + GRAM]) for at in range(max(1, len(words) - GRAM + 1))) if words else Counter()


def scores(found: str, wanted: str) -> tuple[float, float, float]:
    """Precision, recall and F1 of a text's runs of words."""
    have, want = grams(found), grams(wanted)
    hits = (have & want).total()
    precision, recall = hits / max(1, have.total()), hits / max(1, want.total())
    return precision, recall, 2 * precision * recall / (precision + recall) if hits else 0.0


def ours(page: Page) -> str:
    """This project's extraction."""
    from data_curation.html_text import extract_html

    return extract_html(page.html, page.url).text


def by_trafilatura(page: Page) -> str:
    """trafilatura with its defaults, less comments and the state that it keeps between pages."""
    import trafilatura

    from data_curation.html_decode import decode

    text = decode(page.html, None)
    return trafilatura.extract(text, url=page.url, include_comments=False, deduplicate=False) or ""


def by_resiliparse(page: Page) -> str:
    """resiliparse's own main content, less comments and what stands around an article's body."""
    from resiliparse.extract.html2text import extract_plain_text

    from data_curation.html_decode import decode

    return extract_plain_text(decode(page.html, None), main_content=True, comments=False, post_meta=False)


EXTRACTORS: dict[str, Callable[[Page], str]] = {
    "ours": ours,
    "trafilatura": by_trafilatura,
    "resiliparse": by_resiliparse,
}


def labelled(folder: Path) -> tuple[list[Row], dict[str, Any]]:
    """Labelled pages; the rules were chosen on the first half of the ids, so the second tells of unseen pages."""
    pages = labelled_pages(folder)
    texts, rates = _run([page for page, _ in pages.values()], ROUNDS)
    bodies = [body for _, body in pages.values()]
    marks = {name: [scores(text, body) for text, body in zip(texts[name], bodies, strict=True)] for name in texts}
    half = (len(pages) + 1) // 2
    rows: list[Row] = []
    for part, chosen in (("all", slice(None)), ("first half", slice(half)), ("second half", slice(half, None))):
        for index, what in enumerate(("precision", "recall", "F1")):
            mean = {name: sum(one[index] for one in some[chosen]) / len(some[chosen]) for name, some in marks.items()}
            if what == "F1" or part == "all":
                goal = GOAL_F1 if (what, part) == ("F1", "all") else None
                rows.append(row(f"labelled, {part}: {what}", mean["ours"], mean["trafilatura"], "", goal))
    times = rates["ours"] / rates["trafilatura"]
    rows += [
        row("labelled: extract", rates["ours"], rates["trafilatura"], "pages/s", GOAL_LABELLED),
        row("labelled: extract, times trafilatura's speed", times, None, "x", GOAL_RATIO),
        row("labelled: extract beside resiliparse", rates["ours"], rates["resiliparse"], "pages/s"),
    ]
    pairs = zip(pages, marks["ours"], marks["trafilatura"], strict=True)
    lost = [page for page, own, other in pairs if own[1] < LOST <= other[1]]
    bodiless = {name: sum(one[1] < LOST for one in some) for name, some in marks.items()}
    return rows, {
        "labelled: pages": len(pages),
        "labelled: pages that lost their body": bodiless,
        "labelled: pages that lost a body which trafilatura keeps": lost,
    }


def unlabelled(pages: list[Page]) -> tuple[list[Row], dict[str, Any]]:
    """Other pages: speed, and how much of trafilatura's text is kept."""
    texts, rates = _run(pages, 1)
    kept: list[float] = []
    for own, other in zip(texts["ours"], texts["trafilatura"], strict=True):
        have, want = Counter(re.findall(r"\w+", own)), Counter(re.findall(r"\w+", other))
        if want:
            kept.append((have & want).total() / want.total())
    rows = [
        row("pages: extract", rates["ours"], rates["trafilatura"], "pages/s", GOAL_PAGES),
        row("pages: extract beside resiliparse", rates["ours"], rates["resiliparse"], "pages/s"),
    ]
    return rows, {
        "pages: share of trafilatura's words that ours has": sum(kept) / len(kept),
        "pages: ours keeps less than half of trafilatura's words": sum(share < LOST for share in kept),
        "pages: without text": {name: sum(not text for text in found) for name, found in texts.items()},
    }


def _run(pages: list[Page], rounds: int) -> tuple[dict[str, list[str]], dict[str, float]]:
    """The texts of every extractor and its pages per CPU second."""
    texts: dict[str, dict[int, str]] = {name: {} for name in EXTRACTORS}
    largest = max(pages, key=lambda page: len(page.html))
    for extract in EXTRACTORS.values():
        extract(largest)  # imports, and the process for large pages, are no part of the rate

    def side(name: str) -> Callable[[list[int]], None]:
        return lambda some: texts[name].update((index, EXTRACTORS[name](pages[index])) for index in some)

    shares = parts(list(range(len(pages))), CHUNK) * rounds
    spent = in_turns({name: side(name) for name in EXTRACTORS}, shares)
    found = {name: [some[index] for index in range(len(pages))] for name, some in texts.items()}
    return found, {name: rounds * len(pages) / value for name, value in spent.items()}
