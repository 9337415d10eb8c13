"""Filters of conversations: languages that are not kept, replies that run in circles; each drop has its reason."""

from pathlib import Path

from tests.data_curation.chats import ALL_TRAIN, chat, make, said
from tests.data_curation.prose import text

GERMAN = "Der schnelle braune Fuchs springt über den faulen Hund und läuft danach in den dunklen Wald zurück."
ENGLISH = "The quick brown fox jumps over the lazy dog and then runs back into the dark forest behind the house."


def test_other_languages_are_dropped_by_name(tmp_path: Path) -> None:
    """With one language kept, conversations in another and in none that is told are dropped; without, all stay."""
    lines = [chat("What does it do?", ENGLISH), chat("Was macht er?", GERMAN), chat("7 + 5", "12 12 12")]
    _, counts = make(tmp_path, lines, languages=[{"code": "en"}], **ALL_TRAIN)
    assert [reply for _, reply in said(tmp_path, "train")] == [ENGLISH]
    reasons = {row["reason"]: row["documents"] for row in counts.funnel}
    assert reasons["language-de"] == 1
    assert sum(reasons.values()) == 2
    _, counts = make(tmp_path, lines, "all", **ALL_TRAIN)
    assert counts.funnel == []


def test_replies_that_run_in_circles_are_dropped(tmp_path: Path) -> None:
    """A repeated line, sentence and word are found; real prose, a short reply and a repeated prompt stay."""
    prose = text(1, count=6)
    lines = [
        chat("lines", "I am sorry about that.\n" * 30),
        chat("sentences", f"{ENGLISH} " * 12),
        chat("word", "no " * 100),
        chat("prose", prose),
        chat("short", "ha ha ha ha ha"),
        chat("again " * 80, prose.upper()),
    ]
    _, counts = make(tmp_path, lines, near=None, **ALL_TRAIN)
    kept = {prompt.split()[0] for prompt, _ in said(tmp_path, "train")}
    assert kept == {"prose", "short", "again"}
    assert [(row["step"], row["reason"], row["documents"]) for row in counts.funnel] == [("filter", "repetition", 3)]
    make(tmp_path, lines, "all", near=None, repetition=0, **ALL_TRAIN)
    assert len(said(tmp_path, "train", "all")) == 6


def test_a_rejected_reply_that_runs_in_circles_counts(tmp_path: Path) -> None:
    """A preference record is judged by both replies."""
    record = {"prompt": "Q", "chosen": "Fine.", "rejected": "I can not help with that.\n" * 40}
    _, counts = make(tmp_path, [record, chat("x", "y")], **ALL_TRAIN)
    assert [row["step"] for row in counts.funnel] == ["filter"]
