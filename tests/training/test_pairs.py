"""Pairs: right against wrong samples, given preferences, held-out prompts apart, resumable by piece."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_curation.artifact import Artifact
from data_curation.dialogue_rows import PREFERENCES
from data_curation.documents import read_rows
from data_curation.place import Place, parts_of
from data_curation.settings import InputError, StageError
from tests.training.conftest import DIALOGUES, artifact, coins, parquet, sums
from training.answers import Answer
from training.judging import Judged
from training.judging import judge as judged_answers
from training.pairs import PairsConfig, pairs, prompt_key

CONFIG = PairsConfig(samples=3, test_samples=3, max_new_tokens=4, chosen="reference", prompts_per_piece=10)


@pytest.fixture
def dialogues(tmp_path: Path) -> Artifact:
    """Sums: 30 to train, 4 dev, 10 test and one test prompt that also trains."""
    parts = {"train": sums(0, 30), "dev": sums(30, 34), "test": [*sums(40, 50), sums(0, 1)[0]]}
    return conversations(tmp_path / "dialogues", parts)


def conversations(home: Path, parts: dict[str, list[dict[str, Any]]]) -> Artifact:
    """What `dialogues` publishes, with these rows in parts; parts not given are empty."""
    files = {
        f"{split}{kind}": {"00000.parquet": parquet(parts.get(f"{split}{kind}", []), schema)}
        for split in ("train", "dev", "test")
        for kind, schema in (("", DIALOGUES), ("-preferences", PREFERENCES))
    }
    return artifact("dialogues", home, files)


def preference(number: int, prompt: str = "") -> dict[str, Any]:
    """A preference record as `dialogues` publishes it."""
    turns = [
        {"role": "user", "content": prompt or f"Which is better, {number}?"},
        {"role": "assistant", "content": f"good {number}"},
    ]
    return {"id": f"p{number}", "source": "given", "messages": turns, "rejected": f"bad {number}", "margin": number / 2}


def judge(config: PairsConfig, asked: dict[str, Any], answers: list[str]) -> Judged:
    """The verdict on answers that the model ended itself."""
    return judged_answers(config, asked, [Answer(text) for text in answers])


def rows_of(place: Place, part: str) -> list[dict[str, Any]]:
    """All rows of one published part."""
    files = parts_of(place.pieces())[part].files
    return [row for file in files for row in read_rows(f"{place.home}/{part}/{file.path}")]


def row(answer: str = "7", **changes: Any) -> dict[str, Any]:
    """A dialogue row whose verifier wants the number `answer`."""
    return {**sums(34, 35)[0], "task": json.dumps({"family": "x", "checker": "number", "answer": answer}), **changes}


def test_pairs_hold_a_right_and_a_wrong_sample() -> None:
    """The chosen answer passes the verifier, the rejected one does not, both are samples in sampling order."""
    found = judge(PairsConfig(pairs_per_prompt=2), row(), ["8", "7", "9", "8", "7."])
    assert found.pairs == [("7", "8"), ("7.", "9")]


def test_prompts_without_both_sides_say_why() -> None:
    """A prompt with only right, only wrong or only empty wrong answers makes no pair and gives its reason."""
    config = PairsConfig()
    assert judge(config, row(), ["7", "7"]).reason == "no wrong answer"
    assert judge(config, row(), ["8", "9"]).reason == "no right answer"
    assert judge(config, row(), ["7", " "]).reason == "empty side"
    copied = row(task=json.dumps({"family": "x", "checker": "json", "answer": "7"}))
    assert judge(PairsConfig(chosen="reference"), copied, ["x"]).pairs == [(copied["messages"][-1]["content"], "x")]


def test_identical_sides_are_refused() -> None:
    """An answer that differs from the reference in space alone is no rejected side."""
    chat = row(task="", messages=[{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}])
    assert judge(PairsConfig(), chat, ["Hello. ", "Hello.\n"]).reason == "identical sides"
    assert judge(PairsConfig(), chat, ["Hello.", "Go."]).pairs == [("Hello.", "Go.")]


def test_the_reference_steps_in_where_no_sample_is_right() -> None:
    """`sample-or-reference` keeps on-policy answers where there are any."""
    config = PairsConfig(chosen="sample-or-reference")
    reference = row()["messages"][-1]["content"]
    assert judge(config, row(), ["8"]).pairs == [(reference, "8")]
    assert judge(config, row(), ["8", "7"]).pairs == [("7", "8")]


def test_held_out_prompts_never_train(
    tiny_model: Artifact, dialogues: Artifact, new_place: Callable[..., Place]
) -> None:
    """Train and test pairs share no prompt; a held-out prompt that also trains is dropped and counted."""
    place = new_place()
    counts = pairs(CONFIG, tiny_model, dialogues, place)
    train, test = rows_of(place, "train"), rows_of(place, "test")
    assert len(train) == counts.made["train pairs"] == 30
    assert len(test) == counts.made["test pairs"] == 10
    assert not {json.dumps(row["prompt"]) for row in train} & {json.dumps(row["prompt"]) for row in test}
    dropped = counts.funnel[0]
    assert (dropped["step"], dropped["reason"], dropped["documents"]) == ("held-out", "prompt also in train", 1)
    assert counts.metrics["train sample accuracy"]["n"] == 30


def test_a_crash_loses_one_piece_and_changes_no_byte(
    tiny_model: Artifact, dialogues: Artifact, new_place: Callable[..., Place]
) -> None:
    """A second attempt that adopts some pieces publishes the bytes of an unbroken run, without their prompts' work."""
    whole, broken = new_place("whole"), new_place("broken")
    pairs(CONFIG, tiny_model, dialogues, whole)
    pairs(CONFIG, tiny_model, dialogues, broken)
    broken.drop(next(piece for piece in broken.pieces() if piece.name == "train-00001"))
    second = new_place("second")
    assert sorted(second.adopt(broken.home)) == ["prompts", "test-00000", "train-00000", "train-00002"]
    counts = pairs(CONFIG, tiny_model, dialogues, second)
    assert {part: held.digest for part, held in parts_of(second.pieces()).items()} == {
        part: held.digest for part, held in parts_of(whole.pieces()).items()
    }
    assert counts.made == {"train pairs": 30, "test pairs": 10}


def test_only_the_listed_families_are_sampled(
    coin_model: Artifact, tmp_path: Path, new_place: Callable[..., Place]
) -> None:
    """Prompts of other families give no pair in either part."""
    parts = {part: [*coins(*span), *sums(*span)] for part, span in (("train", (0, 12)), ("test", (50, 60)))}
    place = new_place()
    config = CONFIG.model_copy(update={"families": ["coins"]})
    pairs(config, coin_model, conversations(tmp_path / "both", parts), place)
    for part in ("train", "test"):
        assert {json.loads(row["task"])["family"] for row in rows_of(place, part)} == {"coins"}


def test_a_prompt_longer_than_the_context_is_counted(
    coin_model: Artifact, tmp_path: Path, new_place: Callable[..., Place]
) -> None:
    """A task whose prompt leaves no room for an answer makes no pair and has its reason; the others make theirs."""
    rows = coins(0, 12)
    rows[0]["messages"][0]["content"] = "Coin? " * 200
    parts = {"train": rows, "test": coins(50, 52)}
    counts = pairs(CONFIG, coin_model, conversations(tmp_path / "long", parts), new_place())
    dropped = {(row["step"], row["reason"]): row["documents"] for row in counts.funnel}
    assert dropped["train", "prompt longer than the context"] == 1
    assert counts.made["train pairs"] > 0


def test_nothing_to_learn_from_is_an_error(
    tiny_model: Artifact, dialogues: Artifact, tmp_path: Path, new_place: Callable[..., Place]
) -> None:
    """No pair at all names the reasons and the remedies; no task prompt names the part."""
    impossible = [row(answer="123456", id=str(index)) for index in range(3)]
    hard = conversations(tmp_path / "hard", dict.fromkeys(("train", "dev", "test"), impossible))
    with pytest.raises(StageError, match=r"no (right answer|answer ended): \d.*raise pairs\.samples"):
        pairs(PairsConfig(samples=2, max_new_tokens=3), tiny_model, hard, new_place("hard-place"))
    with pytest.raises(InputError, match="part train has no task prompts"):
        pairs(CONFIG, tiny_model, conversations(tmp_path / "empty", {}), new_place("empty-place"))


def test_an_answer_that_never_ends_is_wrong_and_counted() -> None:
    """What was cut is no chosen side even where the verifier would take it; a prompt of such answers has a reason."""
    cut = Answer("7", ended=False)
    assert judged_answers(PairsConfig(), row(), [cut, Answer("7.")]).reason == "no wrong answer"
    assert judged_answers(PairsConfig(), row(), [Answer("7."), Answer("8", ended=False)]).pairs == [("7.", "8")]
    assert judged_answers(PairsConfig(), row(), [cut, Answer("8", ended=False)]).reason == "no answer ended"
    assert judged_answers(PairsConfig(), row(), [cut, Answer("8")]).reason == "no right answer"


def test_given_preferences_become_pairs_as_they_are(
    tiny_model: Artifact, tmp_path: Path, new_place: Callable[..., Place]
) -> None:
    """Records reach both parts beside the sampled pairs, up to their limits; a held-out prompt that trains does not."""
    parts = {
        "train": sums(0, 4),
        "test": sums(40, 42),
        "train-preferences": [preference(number) for number in range(5)],
        "test-preferences": [preference(9), preference(8), preference(7, "Which is better,  0?")],
    }
    place = new_place()
    config = CONFIG.model_copy(update={"preferences": 3, "test_preferences": 5})
    counts = pairs(config, tiny_model, conversations(tmp_path / "given", parts), place)
    train, test = rows_of(place, "train"), rows_of(place, "test")
    assert [one["id"] for one in train if not one["task"]] == ["p0", "p1", "p2"]
    assert [one["id"] for one in test if not one["task"]] == ["p9", "p8"]
    first = next(one for one in train if one["id"] == "p0")
    assert first["prompt"] == preference(0)["messages"][:1]
    assert (first["chosen"], first["rejected"], first["given"], first["margin"]) == ("good 0", "bad 0", True, 0.0)
    assert {one["given"] for one in train if one["task"]} == {False}
    assert counts.taken == {"prompts": 6, "preferences": 5}
    assert counts.made == {"train pairs": 7, "test pairs": 4}
    assert (counts.funnel[0]["reason"], counts.funnel[0]["documents"]) == ("prompt also in train", 1)
    assert counts.metrics["train samples cut at max_new_tokens"]["n"] == 12


def test_preferences_alone_need_no_model(tmp_path: Path, new_place: Callable[..., Place]) -> None:
    """Without task prompts the given records are the pairs, and the model is never loaded."""
    nothing = artifact("model", tmp_path / "nothing", {"model": {"config.json": b"{}"}})
    place = new_place()
    counts = pairs(CONFIG, nothing, conversations(tmp_path / "p", {"train-preferences": [preference(1)]}), place)
    assert counts.made == {"train pairs": 1}
    assert any(warning.startswith("no test pairs") for warning in counts.warnings)


def test_prompts_equal_but_for_space_are_one() -> None:
    """The key of a prompt ignores white space and the answer."""
    first, second = row(), row()
    second["messages"] = [
        {"role": "user", "content": f" {first['messages'][0]['content']}\n"}, {"role": "assistant", "content": "no"}
    ]  # fmt: skip
    assert prompt_key(first) == prompt_key(second)
