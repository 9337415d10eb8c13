"""Guarantees of the rules: each decides as datatrove's own filter, in every language, alone or in a batch."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4BadWordsFilter,
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_curation.language import usual
from data_curation.rules.c4 import C4Config
from data_curation.rules.fineweb import FineWebConfig
from data_curation.rules.gopher import GopherConfig
from data_curation.rules.repetition import RepetitionConfig
from data_curation.rules.rule import Rule
from data_curation.rules.text import Batch, Text
from data_curation.rules.vocabulary import Vocabulary
from data_curation.settings import InputError
from tests.data_curation.prose import paragraphs, sentence, text

THREE = {"en": "eng", "de": "deu", "fr": "fra", "es": "spa", "it": "ita", "nl": "nld", "pt": "por", "ru": "rus"}
"""datatrove's names of our languages."""
WHOLE = {"zh": "zho_Hani", "ja": "jpn"}
"""Languages without spaces."""
STOP_WORDS = {language.code: language.stop_words for language in usual()} | {"zh": ["的"], "ja": ["の"]}
Reference = Callable[[Document], Any]


@cache
def filters(language: str, min_words: int) -> dict[str, Reference]:
    """datatrove's filters, with the thresholds that ours have."""
    code = (THREE | WHOLE)[language]
    stop_words = STOP_WORDS[language]
    return {
        "repetition": GopherRepetitionFilter(language=code).filter,
        "gopher": GopherQualityFilter(
            language=code, min_doc_words=min_words, stop_words=stop_words, min_stop_words=min(2, len(stop_words))
        ).filter,
        "c4": C4QualityFilter(language=code, filter_no_terminal_punct=False).filter,
        "fineweb": FineWebQualityFilter(language=code).filter,
    }


def rules(language: str, min_words: int = 50) -> dict[str, Rule]:
    """Ours."""
    return {
        "repetition": RepetitionConfig(),
        "gopher": GopherConfig(min_words=min_words, min_stop_words=min(2, len(STOP_WORDS[language]))),
        "c4": C4Config(),
        "fineweb": FineWebConfig(),
    }


def theirs(name: str, one: str, language: str, min_words: int) -> tuple[str, str] | None:
    """datatrove's reason, and what its filter leaves of the text; nothing where it divides by no words at all."""
    judged = re.sub(r"\n+", "\n", one) if name == "fineweb" else one  # FineWeb judges what C4 left, and that has none
    document = Document(judged, "")
    try:
        found = filters(language, min_words)[name](document)
    except ZeroDivisionError:
        return None
    return "" if found is True else found[1].replace("_", "-"), document.text


def ours(rule: Rule, texts: Sequence[str], language: str, full: bool) -> list[tuple[str, str]]:
    """Our rule's reasons for a batch of texts, and what it leaves of them, blank lines aside."""
    batch = Batch([Text(one, language) for one in texts], Vocabulary(STOP_WORDS))
    scores = rule.measure(batch, full)
    return [(rule.judge(score), left(one.left)) for score, one in zip(scores, batch.texts, strict=True)]


def left(one: str) -> str:
    """A text without blank lines."""
    return "\n".join(line for line in one.splitlines() if line.strip())


def same(texts: Sequence[str], language: str, min_words: int = 50) -> Counter[str]:
    """Check every rule on every text, and say how often each reason was found."""
    found = Counter[str]()
    for name, rule in rules(language, min_words).items():
        for full in (False, True):
            for one, (reason, kept) in zip(texts, ours(rule, texts, language, full), strict=True):
                expected = theirs(name, one, language, min_words)
                assert expected is None or reason == expected[0], (name, full, one)
                if expected and name == "c4" and not reason:
                    assert kept == left(expected[1])
                found[f"{name} {reason}"] += 1
    return found


def grown(language: str) -> list[str]:
    """Good and bad documents with every flaw that a rule looks for, little and much of it."""
    say = "de" if language == "de" else "en"
    texts = [text(number, say, count=1 + number % 4) for number in range(6)]
    texts += [
        "\n\n".join([*paragraphs(start, say, count=start), *paragraphs(1, say, start // 3)]) for start in range(1, 9)
    ]
    texts += [f"{text(20, say)}\n" + "\n".join(f"- item {row}" for row in range(many)) for many in (5, 30, 300)]
    texts += [f"{text(24, say)}\n" + "\n".join(f"and so on {row}..." for row in range(many)) for many in (2, 12)]
    texts += [text(21, say).replace(".", ""), text(22, say).replace(" ", " # "), text(23, say).replace(" ", " 7 8 9 ")]
    texts += [text(25, say).replace(" ", " ... "), text(26, say).replace(" ", ""), "a b c d e f " * 30, "x" * 1200]
    texts += [
        "\n".join(sentence(row, say) * 2 for row in range(9)),
        " ".join(sentence(row % 12, say) for row in range(14)),
    ]
    texts += [
        f"{text(30, say)}\nWe use cookies on this site.\nJavaScript must be on [1] here.\nSee [citation needed] this."
    ]
    texts += [f"{text(31, say)}\n{{ and javascript }} here it is", f"{text(32, say)}\nLorem Ipsum with javascript on"]
    texts += [
        f"{text(33, say)}\n{'y' * 1100} is one long word",
        "\r\n".join(paragraphs(34, say)),
        "\u2028".join(paragraphs(35, say)),
    ]
    texts += [
        "the the the\nthe the the\nthe the the\nthe end.  :-)",
        "end. so. [1] [1] \nend. so. [1] [1] ",
        "the the the \nthe the the \nthe the the \nthe the the \n[1] [1] [1] ",
        "It is so.\u00a0- It is. It is (so).  ... It is.  —",
    ]
    texts += ["", " ", "\n\n", ".", "word", "\n".join(["short line"] * 40), text(36, say) + "\n" + text(36, say)]
    return texts


@pytest.mark.parametrize("language", THREE)
def test_rules_decide_as_datatrove_does(language: str):
    """On documents of every flaw, decisions, their reasons and the text that is left are datatrove's."""
    found = same(grown(language), language)
    assert len(found) > 15, found


@pytest.mark.parametrize("language", WHOLE)
@pytest.mark.filterwarnings("ignore:Dictionary.create:DeprecationWarning")  # datatrove's call of sudachipy
def test_languages_without_spaces_decide_as_datatrove_does(language: str):
    """Where words are found in whole texts, by a splitter of the language's own, decisions are datatrove's too."""
    if language == "ja":
        pytest.importorskip("sudachipy", reason="its dictionary is 200 MB: not asked of everybody who runs the tests")
    one = {
        "zh": "今天天气很好,我们一起去公园散步。孩子们在草地上玩耍。",
        "ja": "今日は天気がいいので、公園を散歩します。子供たちは遊んでいます。",
    }
    two = {"zh": "老师的书在图书馆里,学生正在认真阅读。", "ja": "先生の本は図書館にあります。学生は読んでいます。"}
    first, second = one[language], two[language]
    texts = [first, first * 9, f"{first}\n{second}\n" * 3, "\n".join([first, second, f"{first}{second}", "abc def"])]
    texts += [
        f"{first} {second} 我 們 [1] {first}",
        f"- {first}\n- {second}\n- {first}{first}",
        f"{second}..." * 4,
        "",
        " \n",
    ]
    found = same(texts, language)
    assert len(found) > 5, found


WORDS = st.sampled_from(
    [
        *("the", "and", "of", "with", "be", "a", "I", "Mr.", "don't", "it's", "over-the-top", "U.S.", "e.g.", "10km"),
        *("3.14", "$5", ":-)", "…", "...", "-", "•", "#", "{x}", "[1]", "[edit]", "café", "Straße", "naïve", "der"),
        *("Lorem", "ipsum", "javascript", "cookies", "policy", "“quoted”", "(so)", "end.", "end!", "end?", "l'homme"),
        *("word", "words", "other", "thing", "green", "и", "это", "слово."),
    ]
)
GAPS = st.sampled_from(
    [" ", " ", " ", " ", "  ", "\n", "\n\n", "\n\n\n", "\t", "\u00a0", ". ", ", ", "\r\n", "\x1f", "\u3000"]
)
LINES = st.lists(st.tuples(WORDS, GAPS), min_size=1, max_size=12).map(lambda pairs: "".join(map("".join, pairs)))


@st.composite
def pages(draw: st.DrawFn) -> str:
    """A text of few lines, some of them many times, or of any characters at all."""
    lines = draw(st.lists(LINES, min_size=1, max_size=6))
    order = draw(st.lists(st.sampled_from(lines), min_size=1, max_size=25))
    return draw(st.sampled_from(["\n", "\n", " ", "\n\n"])).join(order) + draw(st.text(max_size=12))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(st.lists(pages(), min_size=1, max_size=4), st.sampled_from(["en", "de", "fr", "ru"]))
def test_rules_decide_as_datatrove_does_on_any_text(texts: list[str], language: str):
    """Whatever the text, alone or beside others, the decisions are datatrove's."""
    same(texts, language, min_words=8)


def test_a_batch_decides_as_its_texts_alone():
    """What a rule finds in a text depends neither on the texts beside it, nor on their languages, nor on the order."""
    texts = grown("en")
    together = [Text(one, ("en", "de")[at % 2]) for at, one in enumerate(texts)]
    batch = Batch(together, Vocabulary(STOP_WORDS))
    for rule in rules("en").values():
        for one, score in zip(together, rule.measure(batch, True), strict=True):
            alone = Batch([Text(one.text, one.language)], Vocabulary(STOP_WORDS))
            for earlier in (C4Config(),) if isinstance(rule, FineWebConfig) else ():
                earlier.measure(alone, True)
            assert rule.measure(alone, True)[0] == score


def test_thresholds_of_datatrove_are_ours():
    """Other thresholds move decisions as they move datatrove's."""
    texts = grown("en")
    mine = GopherConfig(min_words=80, max_word_length=4.5, max_bullet_lines=0.3, min_stop_words=5)
    other = GopherQualityFilter(min_doc_words=80, max_avg_word_length=4.5, max_bullet_lines_ratio=0.3, min_stop_words=5)
    c4 = C4Config(end_punctuation=True, min_line_words=5, javascript=False, lorem_ipsum=False, curly_brackets=False)
    theirs_c4 = C4QualityFilter(
        min_words_per_line=5, filter_javascript=False, filter_lorem_ipsum=False, filter_curly_bracket=False
    )
    for rule, reference in ((mine, other), (c4, theirs_c4)):
        for one, (reason, _) in zip(texts, ours(rule, texts, "en", False), strict=True):
            found = reference.filter(Document(one, ""))
            assert reason == ("" if found is True else found[1].replace("_", "-")), one


@pytest.mark.parametrize("language", ["en", "zh"])
def test_bad_words_are_found_as_datatrove_finds_them(language: str, tmp_path: Any):
    """A given list drops the documents that C4's filter drops, whole words where the language has spaces."""
    words = ["heck", "darn it", "グロ語"]
    path = tmp_path / "words.txt"
    path.write_text("\n".join(words) + "\n\n")
    reference = C4BadWordsFilter()
    joined = "|".join(map(re.escape, words))
    reference._badwords_regex[language] = re.compile(joined if language == "zh" else rf"(?:\W|^)({joined})(?:\W|$)")
    rule = C4Config(bad_words={language: str(path)}, min_sentences=0)
    texts = ["What the heck.", "HECK", "checks and hecks", "oh darn it!", "darn\nit", "とグロ語と", "fine", "heck_"]
    for one, (reason, _) in zip(texts, ours(rule, texts, language, False), strict=True):
        found = reference.filter(Document(one, "", metadata={"language": language}))
        assert (reason == "bad-words") == (found is not True), one
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    with pytest.raises(InputError, match=r"clean\.c4\.bad_words\.en: .*empty\.txt holds no word: leave it out"):
        ours(C4Config(bad_words={"en": str(empty)}), ["a b c"], "en", False)
