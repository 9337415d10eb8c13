"""A talk in the terminal: answers as the model gives them, earlier turns kept, no model an error in one line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from data_curation.artifact import Artifact
from training.talk import fitting

ROOT = Path(__file__).parents[2]


def chat(*words: str, said: str) -> "subprocess.CompletedProcess[str]":
    """`tokenmill chat` with lines on its standard input."""
    command = [sys.executable, "-m", "flows.cli", "chat", *words]
    return subprocess.run(command, input=said, cwd=ROOT, capture_output=True, text=True)


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
    """What fits is a suffix that begins with a question; the last question stays even where it does not fit."""
    from transformers import AutoTokenizer

    from training.chat import encode

    tokenizer: Any = AutoTokenizer.from_pretrained(chat_tokenizer)
    turns = [{"role": role, "content": f"{role} {number}"} for number in range(3) for role in ("user", "assistant")] + [
        {"role": "user", "content": "last"}
    ]
    whole = len(encode(tokenizer, turns, add_generation_prompt=True)[0])
    assert fitting(tokenizer, turns, whole) == turns
    assert fitting(tokenizer, turns, whole - 1) == turns[2:]
    assert fitting(tokenizer, turns, 1) == turns[-1:]
