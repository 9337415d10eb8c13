"""Evaluation texts planted in conversations: the conversations go, whole, edited or in part; all others stay."""

import json
from pathlib import Path
from typing import Any

from data_curation.artifact import Artifact
from data_curation.decontaminate import DecontaminateConfig
from data_curation.dialogues import DialoguesConfig, Tasks
from data_curation.documents import read_rows
from data_curation.evaluation_items import write_items
from data_curation.place import Place
from data_curation.sources.source import Source
from tests.data_curation.chats import ALL_TRAIN, NO_TASKS, chat, prepare, said, source
from tests.data_curation.prose import text

QUESTION = (
    "A farmer keeps ninety violet geese in three ponds and sells a third of them on Thursday; how many geese swim in "
    "each pond when the fourth pond is dug?"
)


def evaluations(tmp_path: Path, items: list[dict[str, Any]], **settings: Any) -> DecontaminateConfig:
    """A section that names one evaluation set of these records."""
    folder = tmp_path / "evaluation"
    folder.mkdir(exist_ok=True)
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    named = Source(name="geese", kind="jsonl", path=str(folder))
    return DecontaminateConfig.model_validate({"evaluations": [named], **settings})


def config(tmp_path: Path, lines: list[Any], **settings: Any) -> DialoguesConfig:
    """One source of these records."""
    given = {"sources": [source(tmp_path, "talk", lines)], "tasks": NO_TASKS, **ALL_TRAIN}
    return DialoguesConfig.model_validate(given | settings)


def test_conversations_with_an_evaluation_text_go(tmp_path: Path) -> None:
    """Whole in a prompt, edited in a reply, a long run of it, in a rejected side: each goes, counted by the set."""
    lines = [
        chat(f"Solve this. {QUESTION}", "Fifteen."),
        chat("Repeat a riddle.", QUESTION.replace("violet", "purple").replace("dug", "made")),
        chat("Begin it.", " ".join(QUESTION.split()[:15])),
        {"prompt": "Which?", "chosen": "None of these.", "rejected": QUESTION},
        chat("A farmer keeps geese?", "Yes, ninety violet ones, in three ponds."),
        *(chat(f"question {n}", text(n, count=1)) for n in range(20)),
    ]
    section = evaluations(tmp_path, [{"question": QUESTION, "answer": "15"}])
    _, counts = prepare(tmp_path, config(tmp_path, lines), section=section)
    assert [(row["step"], row["reason"], row["documents"]) for row in counts.funnel] == [
        ("decontaminate", "text of geese", 4)
    ]
    kept = {prompt for prompt, _ in said(tmp_path, "train")}
    assert kept == {"A farmer keeps geese?", *(f"question {n}" for n in range(20))}
    assert said(tmp_path, "train-preferences") == []


def test_common_phrases_drop_nothing(tmp_path: Path) -> None:
    """A short text that many conversations hold tells of no leak: they stay, and the text is counted."""
    phrase = "Which of the following is true?"
    lines = [chat(f"{phrase} {text(n, count=1)}", f"reply {n}") for n in range(30)]
    section = evaluations(tmp_path, [{"question": phrase, "answer": "B"}])
    _, counts = prepare(tmp_path, config(tmp_path, lines), section=section)
    assert counts.funnel == []
    assert counts.metrics["common evaluation texts"]["value"] == 1


def test_held_out_preferences_are_evaluation_texts_of_documents(tmp_path: Path) -> None:
    """`decontaminate` looks for the prompts of held-out preference records, and for none that train."""
    prompts = [f"{text(n, count=1)} And what is thing{n}?" for n in range(30)]
    lines = [{"prompt": prompt, "chosen": f"A{n}", "rejected": f"B{n}"} for n, prompt in enumerate(prompts)]
    given = config(
        tmp_path, [*lines, chat("x", "y")], dev_share=0.3, test_share=0.3, tasks=Tasks(train=9, dev=0, test=0)
    )
    parts, _ = prepare(tmp_path, given)
    made = Artifact("dialogues", str(tmp_path / "run"), parts)
    place = Place(str(tmp_path / "items"), tmp_path / "items-scratch")
    with place.piece("items") as piece:
        write_items(DecontaminateConfig(), made, [], piece)
    texts = {row["text"] for row in read_rows(place.work("items", "items.parquet"))}
    for split in ("train", "dev", "test"):
        asked = {prompt for prompt, _ in said(tmp_path, f"{split}-preferences")}
        assert asked
        assert asked <= texts if split != "train" else not asked & texts


def test_the_key_names_evaluation_sets_only_where_they_are_used(tmp_path: Path) -> None:
    """Without sets, or switched off, settings of `decontaminate` do not change what the stage depends on."""
    plain = config(tmp_path, [chat("x", "y")])
    section = evaluations(tmp_path, [{"text": QUESTION}])
    none = DecontaminateConfig(ngram=8)
    assert plain.against(none).identity() == plain.against(DecontaminateConfig()).identity()
    off = plain.model_copy(update={"decontaminate": False})
    assert off.against(section).identity() == off.against(none).identity()
    changed = section.model_copy(update={"ngram": 8})
    assert plain.against(section).identity() != plain.against(changed).identity()
