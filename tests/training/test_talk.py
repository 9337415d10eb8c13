"""A talk in the terminal: answers as the model gives them, earlier turns kept, no model an error in one line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data_curation.artifact import Artifact
from flows.cli import main
from training.talk import fitting, talk

ROOT = Path(__file__).parents[2]


def chat(*words: str, said: str | bytes) -> "subprocess.CompletedProcess[str]":
    """`tokenmill chat` with lines on its standard input."""
    command = [sys.executable, "-m", "flows.cli", "chat", *words]
    given = said if isinstance(said, bytes) else said.encode()
    done = subprocess.run(command, input=given, cwd=ROOT, capture_output=True)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_every_line_is_answered_as_the_model_answers(coin_model: Artifact) -> None:
    """Two questions, a blank line between them: two greedy answers, the second one knowing the first turn."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from training.answers import generate_answers

    folder = Path(coin_model.home, "model")
    done = chat(str(folder), "--json", "--max-new-tokens", "4", said="Coin 1?\n\nCoin 2?\n")
    turns = json.loads(done.stdout.splitlines()[-1])["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 2
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    expected = [generate_answers(model, tokenizer, [turns[:end]], 4)[0].text for end in (1, 3)]
    assert [turn["content"] for turn in turns[1::2]] == expected


def test_a_folder_without_a_model_is_said(tmp_path: Path) -> None:
    """Exit code 2 and one line that names the folder and what makes a model."""
    done = chat(str(tmp_path), said="hi\n")
    assert done.returncode == 2
    assert f"{tmp_path}: no model there" in done.stderr and "tokenmill run demo" in done.stderr


def test_the_oldest_turns_leave_a_full_context(chat_tokenizer: Path) -> None:
    """What fits is a suffix that begins with a question; nothing where the last question alone does not fit."""
    from transformers import AutoTokenizer

    from training.chat import encode

    tokenizer: Any = AutoTokenizer.from_pretrained(chat_tokenizer)
    turns = [{"role": role, "content": f"{role} {number}"} for number in range(3) for role in ("user", "assistant")] + [
        {"role": "user", "content": "last"}
    ]
    whole = len(encode(tokenizer, turns, add_generation_prompt=True)[0])
    assert fitting(tokenizer, turns, whole) == turns
    assert fitting(tokenizer, turns, whole - 1) == turns[2:]
    alone = len(encode(tokenizer, turns[-1:], add_generation_prompt=True)[0])
    assert fitting(tokenizer, turns, alone) == turns[-1:]
    assert fitting(tokenizer, turns, alone - 1) == []


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--temperature=-1", "argument --temperature: '-1' is no number from 0 on"),
        ("--temperature=nan", "argument --temperature: 'nan' is no number from 0 on"),
        ("--temperature=inf", "argument --temperature: 'inf' is no number from 0 on"),
        ("--temperature=warm", "argument --temperature: 'warm' is no number from 0 on"),
        ("--max-new-tokens=0", "argument --max-new-tokens: '0' is no whole number from 1 on"),
        ("--max-new-tokens=1.5", "argument --max-new-tokens: '1.5' is no whole number from 1 on"),
    ],
)
def test_numbers_out_of_bounds_are_refused(option: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and the argument's name, before a model is loaded."""
    with pytest.raises(SystemExit) as ended:
        main(["chat", "nowhere", option])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_text_that_is_not_utf_8_is_refused(tiny_model: Artifact) -> None:
    """Exit code 2 and the line; what came before it was answered."""
    folder = str(Path(tiny_model.home, "model"))
    done = chat(folder, "--max-new-tokens", "1", said="Grüße\n".encode() + "Grüße\n".encode("latin-1"))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "tokenmill: standard input, line 2: byte 0xfc at 2 is not UTF-8" in done.stderr
    assert len(done.stdout.splitlines()) >= 1


def test_a_talk_beyond_the_context_is_told(tiny_model: Artifact) -> None:
    """Of 128 tokens: the oldest turns are left out, a question that is too long is left unanswered; both are said.

    The talk goes on after either, and what was told once is told again only when more is left out.
    """
    said, notes = list[str](), list[str]()
    short, long = "a" * 40, "b" * 200
    folder = Path(tiny_model.home, "model")
    turns = talk(folder, [short, short, long, "c", "d"], said.append, notes.append, 4, 0.0)
    assert [turn["content"] for turn in turns[::2]] == [short, short, "c", "d"] and len(said) == 4
    assert [note.split(":")[0] for note in notes] == [
        "this question is left unanswered",
        "the talk is longer than the model's context of 128 tokens",
    ]
    assert "longer than the model's context of 128 tokens; shorten it" in notes[0]
    assert "no longer knows the first 1 of 3 questions" in notes[1]


def test_an_answer_longer_than_the_context_is_refused(tiny_model: Artifact) -> None:
    """No question would fit beside it."""
    done = chat(str(Path(tiny_model.home, "model")), "--max-new-tokens", "128", said="hi\n")
    assert done.returncode == 2 and "--max-new-tokens is 128, the context of" in done.stderr


def test_notes_stay_out_of_the_json(tiny_model: Artifact) -> None:
    """A program reads standard output alone: the question that was not answered is not in the talk."""
    done = chat(str(Path(tiny_model.home, "model")), "--json", "--max-new-tokens", "4", said="b" * 200 + "\n")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"messages": []})
    assert "tokenmill: this question is left unanswered" in done.stderr
