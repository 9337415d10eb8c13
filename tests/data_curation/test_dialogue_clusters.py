"""Nearly equal conversations and prompts: planted ones are found, a plain count of words agrees, others stay."""

from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from data_curation.dialogue_clusters import clusters
from data_curation.dialogues import DialoguesConfig, Near, NearPrompts
from data_curation.grams import shingles, words
from tests.data_curation.chats import ALL_TRAIN, chat, make, said

EDITS = (
    "Please explain how {} works in simple words",
    "please explain how {} works, in simple words!",
    "Explain how {} works in simple words please",
    "Please explain how {} works in plain simple words",
    "Please explain in simple words how {} works.",
)


def texts(number: int, length: int, seed: int = 0) -> list[str]:
    """Texts of random words from a vocabulary of their own."""
    random = Random(seed)
    return [" ".join(random.choices([f"w{index}" for index in range(5000)], k=length)) for _ in range(number)]


def edited(text: str, edits: int, seed: int) -> str:
    """The text with words replaced."""
    random, listed = Random(seed), text.split()
    for place in random.sample(range(len(listed)), edits):
        listed[place] = f"x{random.randrange(10**6)}"
    return " ".join(listed)


def test_planted_near_duplicates_leave_one_and_are_counted(tmp_path: Path) -> None:
    """Of 40 replies with one edited and one longer copy each the longest stays; replies half rewritten all stay."""
    base = texts(40, 80)
    lines: list[Any] = []
    for number, text in enumerate(base):
        lines += [
            chat(f"prompt{number}", text),
            chat(f"prompt{number}", edited(text, 1, number)),
            chat(f"prompt{number}", f"{text} and more"),
        ]
        lines.append(chat(f"prompt{number}", edited(text, 30, number)))
    _, counts = make(tmp_path, lines, **ALL_TRAIN)
    assert [(row["step"], row["reason"], row["documents"]) for row in counts.funnel] == [
        ("dedup", "near-duplicate", 80)
    ]
    kept = {reply for _, reply in said(tmp_path, "train")}
    assert {f"{text} and more" for text in base} < kept
    assert len(kept) == 80


def test_a_dropped_conversation_is_shown_without_what_is_personal(tmp_path: Path) -> None:
    """Of each reason one conversation is among the samples, an address in it masked."""
    long = " ".join(f"word{number}" for number in range(40))
    lines = [chat("Who?", f"Ask jane.doe@realmail.org: {long}"), chat("Who?", f"Ask jane.doe@realmail.org: {long} now")]
    _, counts = make(tmp_path, lines, **ALL_TRAIN)
    (shown,) = [one for one in counts.samples if one["title"] == "dropped by dedup: near-duplicate"]
    assert "word7" in shown["text"]
    assert "jane.doe" not in shown["text"]


def test_other_replies_to_a_prompt_are_no_repeats(tmp_path: Path) -> None:
    """Ten different replies to one prompt stay, and all fall into one split."""
    make(tmp_path, [chat("Tell me a story.", text) for text in texts(10, 30)], **ALL_TRAIN)
    assert len(said(tmp_path, "train")) == 10


def shared(case: str) -> list[Any]:
    """Different conversations of which the larger part, a text of 150 words and more, is one and the same."""
    (long,) = texts(1, 200)
    other = list(zip(texts(50, 6, seed=1), texts(50, 8, seed=2), strict=True))
    return {
        "system": [{"messages": [{"role": "system", "content": long}, *chat(*one)["messages"]]} for one in other],
        "passage": [chat(f"{long}\n\n{asked}", answered) for asked, answered in other],
        "replies": [chat(long, answered) for _, answered in other],
        "answers": [chat(asked, long) for asked, _ in other],
        "sides": [{"prompt": "Q", "chosen": long, "rejected": rejected} for _, rejected in other],
        "rejected": [{"prompt": "Q", "chosen": chosen, "rejected": long} for _, chosen in other],
    }[case]


@pytest.mark.parametrize("case", ["system", "passage", "replies", "answers", "sides", "rejected"])
def test_a_long_text_that_many_share_collapses_nothing(tmp_path: Path, case: str) -> None:
    """Talks under one system prompt, questions over one passage, replies to one long prompt, one long reply: all
    stay, and so do preference records that share one side."""
    _, counts = make(tmp_path, [*shared(case), chat("x", "y")], **ALL_TRAIN)
    assert counts.funnel == []
    assert len(said(tmp_path, "train")) + len(said(tmp_path, "train-preferences")) == 51


def test_near_duplicates_go_where_both_sides_are_alike(tmp_path: Path) -> None:
    """An edited question with an edited answer goes whatever the system prompt; one with another answer stays, and so
    does the same answer to another question. Among thousands that share a text the planted pairs are found as well."""
    asked, answered = texts(200, 60, seed=1), texts(200, 60, seed=2)
    systems = texts(2, 150, seed=3)
    lines: list[Any] = []
    for number, (question, answer) in enumerate(zip(asked, answered, strict=True)):
        copy = chat(edited(question, 1, number), edited(answer, 1, number))["messages"]
        lines += [
            {"messages": [{"role": "system", "content": systems[0]}, *chat(question, f"{answer} end")["messages"]]},
            {"messages": [{"role": "system", "content": systems[1]}, *copy]},
            chat(question, edited(answer, 30, number)),
            chat(edited(question, 30, number), answer),
        ]
    crowd = [chat(asked[0], text) for text in texts(1000, 40, seed=4)]
    crowd += [chat(asked[0], edited(turn["messages"][1]["content"], 1, n)) for n, turn in enumerate(crowd[:300])]
    _, counts = make(tmp_path, [*lines, *crowd], **ALL_TRAIN)
    assert [(row["step"], row["reason"], row["documents"]) for row in counts.funnel] == [
        ("dedup", "near-duplicate", 500)
    ]
    kept = said(tmp_path, "train")
    assert len(kept) == 600 + 1000
    assert sum(turns[-1].endswith(" end") for turns in kept) == 200


def test_texts_without_words_are_alike_only_where_they_are_equal(tmp_path: Path) -> None:
    """Signs alone: an equal prompt with a nearly equal reply is a near-duplicate, another prompt's is none."""
    (long,) = texts(1, 60)
    _, counts = make(tmp_path, [chat("!!", long), chat("!!", f"{long} more"), chat("??", f"{long} less")], **ALL_TRAIN)
    assert [row["documents"] for row in counts.funnel] == [1]
    assert sorted(prompt for prompt, _ in said(tmp_path, "train")) == ["!!", "??"]


def test_the_order_of_records_does_not_matter(tmp_path: Path) -> None:
    """Records in another order give the same bytes, near-duplicates among them."""
    lines = [chat(f"p{number}", edited(text, edit, edit)) for number, text in enumerate(texts(20, 60))
             for edit in (0, 1, 2)]  # fmt: skip
    first, counts = make(tmp_path, lines, "first")
    second, _ = make(tmp_path, lines[::-1], "second")
    assert {name: part.digest for name, part in first.items()} == {name: part.digest for name, part in second.items()}
    assert sum(row["documents"] for row in counts.funnel) >= 20


def test_near_duplicates_of_held_out_prompts_never_train(tmp_path: Path) -> None:
    """Each of 100 prompts in five planted wordings falls into one split whole, and held-out splits are filled."""
    lines = [
        chat(wording.format(f"topic{number} thing{number}"), f"reply {number} {index}")
        for number in range(100)
        for index, wording in enumerate(EDITS)
    ]
    make(tmp_path, lines, near=None, dev_share=0.2, test_share=0.2)
    found = [{reply.split()[1] for _, reply in said(tmp_path, split)} for split in ("train", "dev", "test")]
    assert sum(len(one) for one in found) == 100
    assert all(len(one) > 8 for one in found)
    assert sum(len(said(tmp_path, split)) for split in ("train", "dev", "test")) == 500


def test_prompts_apart_but_for_marks_part_where_no_nearness_is_asked(tmp_path: Path) -> None:
    """Without `near_prompts` the planted wordings part (else the test above would show nothing)."""
    lines = [chat(wording.format(f"topic{n}"), f"r {n} {i}") for n in range(40) for i, wording in enumerate(EDITS)]
    make(tmp_path, lines, near=None, near_prompts=None, dev_share=0.2, test_share=0.2)
    found = [{reply.split()[1] for _, reply in said(tmp_path, split)} for split in ("train", "dev", "test")]
    assert sum(len(one) for one in found) > 40


def test_a_template_larger_than_the_held_out_share_trains(tmp_path: Path) -> None:
    """A cluster of most conversations never is held out, whatever its hash; small ones still are."""
    for seed in range(8):
        template = [chat(f"Rewrite this sentence in a formal tone: {seed} {n}", f"r{n}") for n in range(60)]
        others = [chat(f"unlike{n} question{n} number{n}", f"o{n}") for n in range(40)]
        make(tmp_path, [*template, *others], f"run{seed}", near=None, dev_share=0.1, test_share=0.1)
        held = [reply for split in ("dev", "test") for _, reply in said(tmp_path, split, f"run{seed}")]
        assert held
        assert not [reply for reply in held if reply.startswith("r")]


@pytest.mark.parametrize("near", [Near(), NearPrompts()])
def test_clusters_agree_with_a_plain_count_of_shared_runs(near: Near) -> None:
    """Nothing is joined but by chains of pairs whose Jaccard index, counted word by word, is enough."""
    given = [edited(text, edits, edits) for edits in (0, 1, 3, 9) for text in texts(40, 40, seed=1)]
    given += ["", "?!", "one", "ONE.", "日本語の文", "日本語 の文", "naïve café", "Naïve  CAFÉ"]
    sets = [set(shingles(words(text), near.ngram)) for text in given]
    parent = list(range(len(given)))

    def root(index: int) -> int:
        return index if parent[index] == index else root(parent[index])

    for one, other in combinations(range(len(given)), 2):
        both = sets[one] | sets[other]
        if both and len(sets[one] & sets[other]) / len(both) >= near.similarity:
            parent[root(one)] = root(other)
    names = np.array([root(index) for index in range(len(given))])
    found = clusters([given], near)
    same, expected = found[:, None] == found, names[:, None] == names
    assert not (same & ~expected).any()
    apart = ~np.eye(len(given), dtype=bool)
    assert (same & apart).sum() > 0.95 * (expected & apart).sum() > 80


def test_most_pairs_at_the_threshold_are_found() -> None:
    """Of 400 pairs just above the similarity at least 95% are joined, beside a thousand other texts."""
    config = DialoguesConfig()
    assert config.near is not None
    base = texts(400, 62, seed=5)
    cut = [" ".join(text.split()[11:]) for text in base]  # 49 of 60 runs: similarity 0.817
    found = clusters([[*base, *cut, *texts(1000, 60, seed=6)]], config.near)
    assert np.mean(found[:400] == found[400:800]) > 0.95
    assert len(set(found[800:].tolist())) == 1000
