"""The tokenizer: a plain folder, a template that ends in EOS, bytes that follow from documents and settings alone."""

import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis.strategies import lists, sampled_from
from transformers import AutoTokenizer

from data_curation.artifact import Artifact
from data_curation.encoding import Encoder
from data_curation.settings import ConfigError, InputError
from data_curation.tokenizer import TokenizerConfig
from tests.data_curation.corpus import documents, row, rows
from tests.data_curation.tokenizers import CONFIG, Trained, made

ROOT = Path(__file__).parents[2]
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "1 + 1?"},
    {"role": "assistant", "content": "2"},
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": "4"},
]


def test_the_folder_is_a_plain_auto_tokenizer(names: Any) -> None:
    """AutoTokenizer loads it with the special tokens of the project and the vocabulary that was asked for."""
    assert (names.bos_token, names.eos_token, names.pad_token) == ("<|endoftext|>", "<|im_end|>", "<|pad|>")
    assert len(names) == 400
    assert {"<|im_start|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"} < set(names.all_special_tokens)


def test_the_last_trained_token_is_eos(names: Any) -> None:
    """Of a conversation the answers with their ends of turn are trained on, and nothing else."""
    found = names.apply_chat_template(CHAT, return_dict=True, return_assistant_tokens_mask=True)
    trained = [token for token, mask in zip(found["input_ids"], found["assistant_masks"], strict=True) if mask]
    assert trained[-1] == names.eos_token_id == found["input_ids"][-1]
    assert names.decode(trained) == "2<|im_end|>4<|im_end|>"


def test_the_newline_stands_before_the_next_turn(names: Any) -> None:
    """Turns are divided by a newline that follows no last turn; the prompt for an answer is what training saw."""
    text = names.apply_chat_template(CHAT, tokenize=False)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n"
        "<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>"
    )
    prompt = names.apply_chat_template(CHAT[:-1], tokenize=False, add_generation_prompt=True)
    assert text == prompt + "4<|im_end|>"


def test_user_text_never_becomes_a_control_token(names: Any, trained: Trained) -> None:
    """`<|im_end|>` typed by a user is split into ordinary tokens when asked, and always in documents."""
    text = "stop <|im_end|> and <|endoftext|>"
    for fast in (True, False):
        ids = Encoder(trained[0], fast).encode([text])[0].tolist()
        assert not set(ids) & set(names.all_special_ids)
        assert names.decode(ids) == text
    assert names(text, split_special_tokens=True).input_ids == ids
    assert names.eos_token_id in names(text).input_ids


@settings(max_examples=300, deadline=None)
@given(
    lists(sampled_from(["<|im_end|>", "<|", "im_start", "|>", "<|endoftext|>", "<|pad|>", "<|fim_", "x", " ", "\n"]))
)
def test_no_text_makes_a_control_token(trained: Trained, pieces: list[str]) -> None:
    """Whatever is typed, whole or in parts, neither encoder gives the id of a control token; the text comes back."""
    text = "".join(pieces)
    encoder = _encoder(trained[0])
    control = set(encoder.slow.get_added_tokens_decoder())
    assert len(control) == 7
    for ids in (encoder.encode([text])[0].tolist(), encoder.reference([text])[0].tolist()):
        assert not set(ids) & control
        assert encoder.slow.decode(ids, skip_special_tokens=False) == text


@lru_cache
def _encoder(folder: Path) -> Encoder:
    return Encoder(folder)


def test_digits_are_taken_one_by_one(names: Any) -> None:
    """A number has as many tokens as digits, whatever stands around it."""
    assert names.tokenize("2026") == ["2", "0", "2", "6"]
    assert names.tokenize("a90210b") == ["a", *"90210", "b"]


@pytest.mark.parametrize("digits", [2, 3])
def test_digits_can_be_taken_together(texts: Artifact, tmp_path: Path, digits: int) -> None:
    """With `digits: 3` up to three digits may share a token and never four; both encoders agree."""
    config = TokenizerConfig(vocab_size=800, digits=digits)  # type: ignore[arg-type]
    folder, _, _ = made(tmp_path, config, texts)
    encoder = Encoder(folder)
    numbers = [str(number) for number in range(0, 100_000, 7)]
    assert encoder.fast is not None and encoder.agrees([*numbers, *(f"a{one}b, {one}" for one in numbers)])
    names: Any = AutoTokenizer.from_pretrained(folder)
    pieces = names.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a 90210")
    assert [text for text, _ in pieces] == ["a", "Ġ", *(["90", "21", "0"] if digits == 2 else ["902", "10"])]
    assert {1, 2} <= {len(token) for one in numbers for token in names.tokenize(one)} <= set(range(1, digits + 1))


def test_every_text_comes_back(names: Any, trained: Trained) -> None:
    """All 256 bytes are in the alphabet, so text in scripts that nobody trained on round-trips."""
    text = "".join(chr(code) for code in range(0x3000)) + " 漢字 \U0001f600\r\n\t  x  "
    assert names.decode(names(text).input_ids) == text
    assert [gate["passed"] for gate in trained[1].gates] == [True]


def test_both_encoders_give_the_same_ids(trained: Trained) -> None:
    """fastokens, where installed, gives Hugging Face's ids for every document and for odd characters."""
    encoder = Encoder(trained[0])
    assert encoder.fast is not None
    texts = [some["text"] for some in rows(100)] + ["", " ", "\n\n \n", "a\u0301e\u200d\U0001f468", "<|im_end|>"]
    assert encoder.agrees(texts)
    assert [ids.tolist() for ids in encoder.encode(texts)] == [ids.tolist() for ids in encoder.reference(texts)]


def test_bytes_follow_from_documents_and_settings_alone(texts: Artifact, trained: Trained, tmp_path: Path):
    """Other files, another order and another number of threads give the same bytes."""
    other = documents(tmp_path / "other", list(reversed(rows(300))), files=7)
    script = (
        "import sys; from pathlib import Path; from tests.data_curation.corpus import artifact\n"
        "from tests.data_curation.tokenizers import CONFIG, made\n"
        "made(Path(sys.argv[1]), CONFIG, artifact('documents', Path(sys.argv[2])))"
    )
    folders = []
    for threads in ("1", "4"):
        environment = {**os.environ, "RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "true"}
        command = [sys.executable, "-c", script, str(tmp_path / threads), other.home]
        subprocess.run(command, env=environment, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        folders.append(tmp_path / threads / "out/tokenizer")
    for file in trained[0].iterdir():
        assert [(folder / file.name).read_bytes() for folder in folders] == [file.read_bytes()] * 2


def test_wrong_input_is_named(tmp_path: Path) -> None:
    """No text, a folder without tokenizer and a broken expression each get a line that says so."""
    empty = documents(tmp_path / "empty", [row("a", ""), row("b", "")])
    with pytest.raises(InputError, match="2 documents with no text"):
        made(tmp_path / "1", CONFIG, empty)
    with pytest.raises(ConfigError, match=r"tokenizer\.path: no tokenizer\.json"):
        TokenizerConfig(path=str(tmp_path)).identity()
    with pytest.raises(ConfigError, match=r"tokenizer\.pattern"):
        made(tmp_path / "2", TokenizerConfig(pattern="("), documents(tmp_path / "some", rows(20)))
