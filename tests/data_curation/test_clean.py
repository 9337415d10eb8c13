"""Guarantees of `clean`: right languages, datatrove's own decisions, every document accounted for."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.utils.word_tokenizers import SpaCyTokenizer

from data_curation.artifact import Artifact
from data_curation.clean import CleanConfig, Language, clean
from data_curation.counts import Counts
from data_curation.settings import ConfigError, InputError
from data_curation.words import Words
from tests.data_curation.places import documents, rows, run
from tests.data_curation.prose import paragraphs, sentence, text


def cleaned(tmp_path: Path, texts: list[str], **settings: Any) -> tuple[Artifact, Counts]:
    """Clean one file of texts."""
    given = documents(tmp_path / "given", [[{"id": str(number), "text": one} for number, one in enumerate(texts)]])
    return run(clean, CleanConfig(**settings), given, home=tmp_path / "home", scratch=tmp_path)


def reasons(made: Artifact) -> dict[str, str]:
    """Step and reason of every document."""
    return {row["id"]: f"{row['step']} {row['reason']}".strip() for row in rows(made, "decisions")}


def test_languages_are_identified(tmp_path: Path) -> None:
    """Documents get their language and its confidence; those in other languages are dropped by its name."""
    texts = [text(1), text(2, "de"), text(3, "sv"), text(4)]
    made, counts = cleaned(tmp_path, texts)
    assert [(row["id"], row["language"]) for row in rows(made)] == [("0", "en"), ("1", "de"), ("3", "en")]
    assert all(row["language_score"] > 0.65 for row in rows(made))
    assert reasons(made)["2"] == "language language-sv"
    assert json.loads((tmp_path / "home/records/languages.json").read_text()) == {"de": 1, "en": 2}
    assert counts.made["documents"] == 3


def test_unsure_language_is_dropped(tmp_path: Path) -> None:
    """A document below its language's own threshold is dropped as unsure."""
    languages = [Language(code="en", score=1.0), Language(code="de", score=0.3, stop_words=["und", "der", "das"])]
    made, _ = cleaned(tmp_path, [text(1) + text(2, "de"), text(2, "de")], languages=languages)
    assert reasons(made) == {"0": "language language-unsure", "1": "clean"}


def test_bad_documents_have_their_reason(tmp_path: Path) -> None:
    """Each kind of bad document is dropped by the rule that is meant for it."""
    bad = {
        "gopher-repetition dup-para-frac": "\n\n".join([sentence(1)] * 9),
        "gopher-quality gopher-short-doc": " ".join(sentence(number) for number in range(2)),
        "fineweb line-punct-ratio": "\n".join(sentence(number).rstrip(".") for number in range(12)),
        "fineweb char-dup-ratio": "\n\n".join([*(sentence(number) for number in range(20)), sentence(3)]),
    }
    made, counts = cleaned(tmp_path, [*bad.values(), text(7)])
    assert list(reasons(made).values()) == [*bad, "clean"]
    assert {f"{row['step']} {row['reason']}": row["documents"] for row in counts.funnel} == dict.fromkeys(bad, 1)


def test_rules_decide_as_datatrove_does(tmp_path: Path) -> None:
    """On good and bad documents every decision is that of datatrove's own filters with their own word split."""
    texts = [text(number, count=1 + number % 4) for number in range(12)]
    texts += [
        "\n\n".join([*paragraphs(start, count=start), *paragraphs(1, count=start // 3)]) for start in range(1, 12)
    ]
    texts += [f"{text(20)}\n" + "\n".join(f"- item {row}" for row in range(rows)) for rows in (5, 30, 90)]
    texts += [text(21).replace(".", ""), text(22).replace(" ", " # "), text(23).replace("the ", "the  2 34 56 78 ")]
    texts += ["\n".join(sentence(row) * 2 for row in range(9)), " ".join(sentence(row % 12) for row in range(14))]
    made, _ = cleaned(tmp_path, texts)
    filters = [GopherRepetitionFilter(language="eng"), GopherQualityFilter(), FineWebQualityFilter()]
    expected = {}
    for number, one in enumerate(texts):
        found = [filters[0].filter(Document(one, "")), filters[1].filter(Document(one, ""))]
        found.append(filters[2].filter(Document(one.replace("\n\n", "\n"), "")))
        first = next((result for result in found if result is not True), (False, ""))
        assert isinstance(first, tuple)
        expected[str(number)] = first[1].replace("_", "-")
    assert {row["id"]: row["reason"] for row in rows(made, "decisions")} == expected
    assert len(Counter(expected.values())) >= 4


@pytest.mark.parametrize("language", ["en", "de", "es"])
def test_words_are_those_of_datatrove(language: str) -> None:
    """The faster word split gives datatrove's words, also with abbreviations, emoticons, URLs and odd spaces."""
    odd = "Mr. O'Neill can't :-) pay $1,000.50 (ca. 900€) at https://a.example/b?c=d… l'homme d'or z.B. 10km\u00a0x\ty"
    texts = [odd, text(3), text(4, "de"), f"{odd}\n\n{text(3)}", "'tis", " "]
    ours, theirs = Words.of(language), SpaCyTokenizer(language)
    for one in [*texts, *texts]:
        assert ours.word_tokenize(one) == theirs.word_tokenize(one)


def test_language_without_word_split_is_refused(tmp_path: Path) -> None:
    """A configured language whose words cannot be split is an error of the configuration."""
    with pytest.raises(ConfigError, match=r"clean\.languages: spaCy has no rules for 'xq'"):
        cleaned(tmp_path, [text(1)], languages=[Language(code="xq")])


def test_nothing_left_is_an_error_with_reasons(tmp_path: Path) -> None:
    """When no document is left, the error says which rules dropped how many."""
    with pytest.raises(InputError, match=r"none of 3 documents is left; dropped by language language-sv 2, gopher-"):
        cleaned(tmp_path, [text(1, "sv"), text(2, "sv"), sentence(1)])
