"""A talk with a model folder: line after line is answered, earlier turns are kept while they fit."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from data_curation.settings import ConfigError

Message = dict[str, str]


def talk(
    folder: Path, lines: Iterable[str], say: Callable[[str], None], max_new_tokens: int, temperature: float
) -> list[Message]:
    """Answer every line that is not blank, greedily at temperature 0; returns the whole talk.

    Raises ConfigError for a folder that holds no model, StageError where stop token and template disagree.
    """
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder}: no model there (no config.json): `tokenmill run demo` makes out/demo/model")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from training.answers import generate_answers
    from training.chat import check_contract

    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    check_contract(tokenizer, folder)
    turns: list[Message] = []
    for number, line in enumerate(line for line in lines if line.strip()):
        turns.append({"role": "user", "content": line.strip()})
        recent = fitting(tokenizer, turns, model.config.max_position_embeddings - max_new_tokens)
        (answer,) = generate_answers(
            model, tokenizer, [recent], max_new_tokens, temperature=temperature, seed=number
        )  # fmt: skip
        say(answer.text)
        turns.append({"role": "assistant", "content": answer.text})
    return turns


def fitting(tokenizer: Any, turns: list[Message], tokens: int) -> list[Message]:
    """The latest turns that fit into so many tokens, from a question on; the last question alone in any case."""
    from training.chat import encode

    start = 0
    while start < len(turns) - 1 and len(encode(tokenizer, turns[start:], add_generation_prompt=True)[0]) > tokens:
        start += 2
    return turns[start:]
