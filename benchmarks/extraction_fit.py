"""Fit the weights of data_curation/boilerplate.py on the first half of the labelled pages, and print them.

python -m benchmarks.extraction_fit --labelled DIR

A block's target is the share of its runs of words that the labelled body has; its weight grows with its words. The fit
is repeated on six parts of the half, each scored by the other five, and this F1 is printed beside the weights.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

from benchmarks.extraction import grams, scores
from benchmarks.pages import labelled_pages
from data_curation import boilerplate
from data_curation.boilerplate import WEIGHTS
from data_curation.html_blocks import Block, read_blocks, render
from data_curation.html_decode import decode

PENALTY = 1.5
"""Of the squared weights, beside the log loss summed over blocks."""
BIAS = 0.5
"""Added to the bias after the fit: losing text costs more than keeping furniture."""
PARTS = 6

Example = tuple[list[Block], Any, Any, Any, str]


def main() -> int:
    """Print the weights and the cross-validated F1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labelled", type=Path, required=True, help="folder of labelled pages")
    pages = list(labelled_pages(parser.parse_args().labelled).values())
    examples = [_example(page.html, body) for page, body in pages[: (len(pages) + 1) // 2]]
    found: list[float] = []
    for part in range(PARTS):
        weights = fit([example for at, example in enumerate(examples) if at % PARTS != part])
        found += [_f1(example, weights) for example in examples[part::PARTS]]
    print(f"cross-validated F1 {sum(found) / len(found):.4f}")
    for name, weight in zip(WEIGHTS, fit(examples), strict=True):
        print(f'    "{name}": {weight:.2f},')
    return 0


def fit(examples: list[Example]) -> Any:
    """The weights of a logistic regression on the blocks of some pages."""
    rows = np.vstack([example[1] for example in examples])
    wanted = np.concatenate([example[2] for example in examples])
    weight = np.concatenate([example[3] for example in examples])
    weight = np.minimum(weight, np.quantile(weight, 0.99))
    weight /= weight.mean()

    def loss(values: Any) -> tuple[float, Any]:
        score = rows @ values
        free = np.concatenate([[0.0], values[1:]])
        value = (weight * (np.logaddexp(0, score) - wanted * score)).sum() + PENALTY * (free @ free)
        return value, rows.T @ (weight * (1 / (1 + np.exp(-score)) - wanted)) + 2 * PENALTY * free

    found = minimize(loss, np.zeros(rows.shape[1]), jac=True, method="L-BFGS-B").x
    found[0] += BIAS
    return found


def _example(html: bytes, body: str) -> Example:
    """A page's main blocks with features, targets, weights, and its labelled body."""
    from resiliparse.extract.html2text import extract_plain_text

    text = extract_plain_text(
        decode(html, None),
        preserve_formatting="minimal_html",
        main_content=True,
        links=True,
        alt_texts=False,
        comments=False,
        post_meta=False,
    )
    blocks = read_blocks(text)
    runs, lines = grams(body), {tuple(line.split()) for line in body.split("\n")}
    words = np.array([max(1, grams(block.text).total() + 3) for block in blocks], float)
    targets = [
        (grams(block.text) & runs).total() / max(1, grams(block.text).total())
        if len(block.text.split()) >= 4
        else float(tuple(block.text.split()) in lines)
        for block in blocks
    ]
    wanted = np.array(targets)
    weight = (np.minimum(words, 60) + 2) / max(50.0, float((words * wanted).sum()))
    # A score is linear in the weights: with one of them 1 and all others 0 it is that feature.
    features = np.array([boilerplate.scores(blocks, unit) for unit in np.eye(len(WEIGHTS)).tolist()])
    return blocks, features.T, wanted, weight, body


def _f1(example: Example, weights: Any) -> float:
    blocks, rows, _, _, body = example
    return scores(render([block for block, score in zip(blocks, rows @ weights, strict=True) if score > 0]), body)[2]


if __name__ == "__main__":
    raise SystemExit(main())
