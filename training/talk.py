"""A talk with a model folder: line after line is answered, earlier turns are kept while they fit."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from data_curation.settings import ConfigError

Message = dict[str, str]
Say = Callable[[str], None]


def talk(
    folder: Path, lines: Iterable[str], say: Say, note: Say, max_new_tokens: int, temperature: float
) -> list[Message]:
    """Answer every line that is not blank, greedily at temperature 0; returns the whole talk.

    `say` is given answers, `note` what a person should know: that earlier turns no longer fit into the model's context,
    or that a question does not, which is then left unanswered and out of the talk.
    Raises ConfigError for a folder that holds no model, StageError where stop token and template disagree.
    """
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder}: no model there (no config.json): `tokenmill run demo` makes out/demo/model")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from training.answers import generate_answers
    from training.chat import check_contract

    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    context = model.config.max_position_embeddings
    if max_new_tokens >= context:
        raise ConfigError(
            f"--max-new-tokens is {max_new_tokens}, the context of {folder} holds {context} tokens, question and "
            "answer together: ask for fewer"
        )
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    check_contract(tokenizer, folder)
    turns: list[Message] = []
    told = 0
    for number, line in enumerate(line for line in lines if line.strip()):
        asked = [*turns, {"role": "user", "content": line.strip()}]
        recent = fitting(tokenizer, asked, context - max_new_tokens)
        if not recent:
            note(
                f"this question is left unanswered: with {max_new_tokens} tokens for an answer it is longer than the "
                f"model's context of {context} tokens; shorten it or give fewer --max-new-tokens"
            )
            continue
        if len(asked) - len(recent) > told:
            told = len(asked) - len(recent)
            note(
                f"the talk is longer than the model's context of {context} tokens: it no longer knows the first "
                f"{told // 2} of {len(turns) // 2} questions and answers"
            )
        (answer,) = generate_answers(
            model, tokenizer, [recent], max_new_tokens, temperature=temperature, seed=number
        )  # fmt: skip
        say(answer.text)
        turns = [*asked, {"role": "assistant", "content": answer.text}]
    return turns


def fitting(tokenizer: Any, turns: list[Message], tokens: int) -> list[Message]:
    """The latest turns that fit into so many tokens, from a question on; none where the last question does not."""
    from training.chat import encode

    for start in range(0, len(turns), 2):
        if len(encode(tokenizer, turns[start:], add_generation_prompt=True)[0]) <= tokens:
            return turns[start:]
    return []


def decoded(lines: Iterable[bytes]) -> Iterator[str]:
    """Lines of standard input as text; ConfigError names the first one that is not UTF-8."""
    for number, line in enumerate(lines, 1):
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            raise ConfigError(
                f"standard input, line {number}: byte {line[error.start]:#04x} at {error.start} is not UTF-8: "
                "convert the text, for example with iconv"
            ) from error
