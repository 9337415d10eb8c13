"""Guarantees of `clean`: right languages, named reasons, normal and impersonal text, every document accounted for."""

import json
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from data_curation.clean import STEPS, CleanConfig, Language
from data_curation.settings import ConfigError, InputError
from tests.data_curation.cleaning import cleaned, cleaned_rows, reasons
from tests.data_curation.places import rows
from tests.data_curation.prose import paragraphs, sentence, text

BAD = {
    "repetition dup-para-frac": "\n\n".join([sentence(1)] * 9),
    "gopher gopher-short-doc": " ".join(sentence(number) for number in range(2)),
    "c4 curly-bracket": f"{text(9)}\n\nfunction that(works) {{ return it; }}",
    "c4 lorem-ipsum": f"{text(8)}\n\nLorem ipsum dolor sit amet and so on.",
    "c4 too-few-sentences": text(6).replace(".", ",").replace("\n\n", " ") + " and so on and so on.",
    "fineweb line-punct-ratio": "\n".join(sentence(number).rstrip(".") for number in range(12)),
    "fineweb char-dup-ratio": "\n\n".join([*(sentence(number) for number in range(20)), sentence(3)]),
}
"""A document for each of several reasons."""


def test_languages_are_identified(tmp_path: Path):
    """Documents get their language and its confidence; those in other languages are dropped by its name."""
    made, counts = cleaned(tmp_path, [text(1), text(2, "de"), text(3, "sv"), text(4)])
    assert [(row["id"], row["language"]) for row in rows(made)] == [("0000", "en"), ("0001", "de"), ("0003", "en")]
    assert all(row["language_score"] > 0.65 for row in rows(made))
    assert reasons(made)["0002"] == "language language-sv"
    assert json.loads((tmp_path / "home/records/languages.json").read_text()) == {"de": 1, "en": 2}
    assert counts.made["documents"] == 3


def test_unsure_language_is_dropped(tmp_path: Path):
    """A document below its language's own threshold is dropped as unsure."""
    languages = [Language(code="en", score=1.0), Language(code="de", score=0.3, stop_words=["und", "der", "das"])]
    made, _ = cleaned(tmp_path, [text(1) + text(2, "de"), text(2, "de")], languages=languages)
    assert reasons(made) == {"0000": "language language-unsure", "0001": "clean"}


@pytest.mark.parametrize("decisions", ["reasons", "full"])
def test_bad_documents_have_their_reason(tmp_path: Path, decisions: str):
    """Each kind of bad document is dropped by the rule that is meant for it, whatever is kept of the scores."""
    made, counts = cleaned(tmp_path, [*BAD.values(), text(7)], decisions=decisions)
    assert list(reasons(made).values()) == [*BAD, "clean"]
    assert {f"{row['step']} {row['reason']}": row["documents"] for row in counts.funnel} == dict.fromkeys(BAD, 1)


def test_passage_shows_what_was_wrong(tmp_path: Path):
    """The passage of a drop is the text that the reason speaks of."""
    made, _ = cleaned(tmp_path, [*BAD.values(), text(7)])
    passages = {f"{row['step']} {row['reason']}": row["passage"] for row in rows(made, "decisions")}
    assert passages["repetition dup-para-frac"] == sentence(1)
    assert passages["c4 curly-bracket"] == "function that(works) { return it; }"
    assert passages["fineweb char-dup-ratio"] == sentence(3)
    assert passages["clean "] == ""


def test_every_document_has_one_decision_and_full_scores_judge_it(tmp_path: Path):
    """Kept and dropped together are all documents; full scores alone lead to the decision that was made."""
    texts = [
        *BAD.values(),
        *(text(number, language) for number in range(6) for language in ("en", "de", "sv")),
        " ",
        "",
    ]
    made, counts = cleaned(tmp_path, texts, files=3, decisions="full")
    decided = rows(made, "decisions")
    assert sorted(row["id"] for row in decided) == [f"{number:04d}" for number in range(len(texts))]
    kept = {row["id"] for row in rows(made)}
    assert kept == {row["id"] for row in decided if not row["reason"]}
    assert (counts.taken["documents"], counts.made["documents"]) == (len(texts), len(kept))
    config = CleanConfig(decisions="full")
    for row in decided:
        step, reason = config.judge(json.loads(row["scores"]))
        assert (step or "clean", reason) == (row["step"], row["reason"])
        assert row["step"] in (*STEPS, "clean")


def test_one_digest_for_any_number_of_workers(tmp_path: Path):
    """One and three workers write the same bytes."""
    texts = [*BAD.values(), *(text(number) for number in range(20))]
    one, _ = cleaned(tmp_path / "one", texts, workers=1, files=4, decisions="full")
    three, _ = cleaned(tmp_path / "three", texts, workers=3, files=4, decisions="full")
    assert {name: part.digest for name, part in one.parts.items()} == {
        name: part.digest for name, part in three.parts.items()
    }


def test_text_is_normal_and_impersonal_and_keeps_its_id(tmp_path: Path):
    """What stays is decoded rightly and holds no address; both are counted, ids stay, either can be off."""
    wrong = text(1) + "\n\nThe schÃ¶n cafÃ© of jane.doe@mail.example.edu was at 81.2.69.142, said joe@firm.de and left."
    made, counts = cleaned(tmp_path / "on", [wrong, text(2)])
    (first, second) = rows(made)
    assert first["id"] == "0000" and second["text"] == text(2)
    assert first["text"].endswith(
        "The schön café of email@example.com was at 192.0.2.1, said email@example.com and left."
    )
    values = {name: metric["value"] for name, metric in counts.metrics.items()}
    assert values == {"normalised": 1, "pii_email": 2, "pii_ip": 1}
    made, counts = cleaned(tmp_path / "off", [wrong], pii=None, normalise=False)
    assert rows(made)[0]["text"] == wrong and counts.metrics == {}


def test_passages_are_impersonal(tmp_path: Path):
    """What people are shown of a dropped document holds no address, not even where none is replaced."""
    short = BAD["gopher gopher-short-doc"] + " Write to {} today."
    for name, settings in {"on": {}, "off": {"pii": None}}.items():
        made, _ = cleaned(tmp_path / name, [short.format("jane.doe@mail.firm.de"), text(1)], **settings)
        assert [row["passage"] for row in rows(made, "decisions")] == [short.format("email@example.com"), ""]


def test_mojibake_does_not_hide_a_reason(tmp_path: Path):
    """Rules see the repaired text: marks that were decoded wrongly still end lines."""
    fine = "\n".join(f"{sentence(number)[:-1]}…" for number in range(30))
    wrong = fine.encode().decode("cp1252")
    on, _ = cleaned(tmp_path / "on", [wrong, text(1)])
    assert reasons(on)["0000"] == "gopher gopher-too-many-end-ellipsis"


def test_blocked_urls_go_first(tmp_path: Path):
    """Documents of a block list's domains and pages go before anything is asked of their text."""
    blocked = tmp_path / "blocked.txt"
    blocked.write_text("# ours\nbad.example\nhttps://good.example/private\n")
    urls = [
        "http://www.bad.example/a",
        "https://good.example/private/x",
        "https://good.example/public",
        "https://a.example/casino-1",
    ]
    files = [[{"id": str(at), "text": text(at), "url": url} for at, url in enumerate(urls)]]
    made, _ = cleaned_rows(tmp_path, files, urls={"block_list": str(blocked), "words": ["casino"]})
    assert reasons(made) == {
        "0": "urls blocked-domain",
        "1": "urls blocked-url",
        "2": "clean",
        "3": "urls blocked-word",
    }


def test_given_lists_count_by_their_bytes(tmp_path: Path):
    """A list's place does not enter the stage's key, its content does; one that cannot be read is named."""
    paths = [tmp_path / name for name in ("one", "two")]
    for path in paths:
        path.write_text("bad.example\n")

    def identity(path: Path) -> object:
        return CleanConfig.model_validate(
            {"urls": {"block_list": str(path)}, "c4": {"bad_words": {"en": str(path)}}}
        ).identity()

    assert identity(paths[0]) == identity(paths[1])
    paths[1].write_text("worse.example\n")
    assert identity(paths[0]) != identity(paths[1])
    with pytest.raises(ConfigError, match=r"^clean\.urls\.block_list: .*missing cannot be read"):
        identity(tmp_path / "missing")


def test_lines_that_are_no_prose_are_taken_out(tmp_path: Path):
    """RefinedWeb's line rules take lines out, and documents that consist of such lines go."""
    long = text(3, count=20)
    shouting = "\n".join(["READ THIS AND ALL OF THAT NOW OR NEVER", "3 likes", "12 34"] * 4)
    made, _ = cleaned(tmp_path, [f"{long}\nREAD MORE\n12 likes", f"{text(1)}\n{shouting}"], lines={}, repetition=None)
    assert reasons(made) == {"0000": "clean", "0001": "lines removed-lines"}
    assert rows(made)[0]["text"] == long


def test_language_without_word_split_is_refused(tmp_path: Path):
    """A configured language whose words cannot be split is an error of the configuration."""
    with pytest.raises(ConfigError, match=r"clean\.languages: spaCy has no rules for 'xq'"):
        cleaned(tmp_path, [text(1)], languages=[Language(code="xq")])
    for code, package in {"th": "pythainlp", "vi": "pyvi", "ko": "natto"}.items():
        if find_spec(package) is None:
            words = rf"clean\.languages: the package {package} is not installed, so words of '{code}' cannot be split"
            with pytest.raises(ConfigError, match=words):
                cleaned(tmp_path / code, [text(1)], languages=[Language(code=code)])


def test_nothing_left_is_an_error_with_reasons(tmp_path: Path):
    """When no document is left, the error says which rules dropped how many."""
    with pytest.raises(
        InputError, match=r"none of 3 documents is left; dropped by language language-sv 2, repetition "
    ):
        cleaned(tmp_path, [text(1, "sv"), text(2, "sv"), sentence(1)])


def test_odd_documents_lose_nobody_else(tmp_path: Path):
    """Empty, endless, and unpaired text gets a decision like any other, and its neighbours theirs."""
    odd = ["", " \n\t", "\u0000" * 50, "x" * 300_000, "🙂" * 500, "\u2028\u0085\r\n" * 50, "IS_ALPHA " * 90]
    made, _ = cleaned(tmp_path, [text(1), *odd, text(2)])
    found = reasons(made)
    assert Counter(reason for reason in found.values() if reason == "clean") == {"clean": 2}
    assert found["0000"] == found["0008"] == "clean" and len(found) == 9


def test_paragraphs_survive_where_lines_are_taken_out(tmp_path: Path):
    """C4 takes lines out and leaves the blank lines between what stays."""
    parts = paragraphs(5, count=6)
    made, _ = cleaned(tmp_path, ["\n\n".join([*parts[:3], "Menu", "We use cookies on this site, always.", *parts[3:]])])
    assert rows(made)[0]["text"] == "\n\n".join(parts)
