"""Refusals: told from answers, and asked in pairs that look alike."""

import pytest

from training.refusals import HARMFUL, HARMLESS, refused


@pytest.mark.parametrize(
    ("answer", "is_refusal"),
    [
        ("I can't help with that.", True),
        ("I\u2019m sorry, but that would hurt people.", True),
        ("No. I will not explain this.", True),
        ("I am unable to assist.", True),
        ("You can not burn wet wood.", False),
        ("Use kill with the process id.", False),
        ("Take a stick. Dry it. Then the hero says: I cannot go on.", False),
        ("", False),
    ],
)
def test_a_refusal_is_told_by_its_first_sentences(answer: str, is_refusal: bool) -> None:
    """Usual refusals count, with either apostrophe; answers, and refusals inside a story, do not."""
    assert refused(answer) is is_refusal


def test_both_lists_are_equally_long_and_ask_different_things() -> None:
    """As many harmless as harmful requests, none twice."""
    assert len(HARMFUL) == len(HARMLESS)
    assert len({*HARMFUL, *HARMLESS}) == len(HARMFUL) + len(HARMLESS)
