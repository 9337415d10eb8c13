"""The tokenizer: a plain folder, a template that ends in EOS, bytes that follow from documents and settings alone."""

import json
import os
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from hypothesis import given as given_text
from hypothesis import settings
from hypothesis.strategies import lists, sampled_from
from transformers import AutoTokenizer

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.encoding import Encoder
from data_curation.place import Place, parts_of
from data_curation.settings import ConfigError, InputError
from data_curation.tokenizer import Sample, TokenizerConfig, tokenizer
from tests.data_curation.corpus import documents, new_place, row, rows

CONFIG = TokenizerConfig(vocab_size=400)
ROOT = Path(__file__).parents[2]
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "1 + 1?"},
    {"role": "assistant", "content": "2"},
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": "4"},
]


def made(home: Path, config: TokenizerConfig, given: Artifact) -> tuple[Path, Counts, Place]:
    """The folder that the stage published, its counts and its place."""
    place = new_place(home)
    counts = tokenizer(config, given, place)
    return Path(place.home) / "tokenizer", counts, place


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """300 documents."""
    return documents(tmp_path_factory.mktemp("documents"), rows(300))


@pytest.fixture(scope="module")
def trained(given: Artifact, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Counts]:
    """Folder and counts of a tokenizer that was trained on them."""
    folder, counts, _ = made(tmp_path_factory.mktemp("trained"), CONFIG, given)
    return folder, counts


@pytest.fixture(scope="module")
def names(trained: tuple[Path, Counts]) -> Any:
    """The same, loaded."""
    return AutoTokenizer.from_pretrained(trained[0])


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


def test_user_text_never_becomes_a_control_token(names: Any, trained: tuple[Path, Counts]) -> None:
    """`<|im_end|>` typed by a user is split into ordinary tokens when asked, and always in documents."""
    text = "stop <|im_end|> and <|endoftext|>"
    for fast in (True, False):
        ids = Encoder(trained[0], fast).encode([text])[0].tolist()
        assert not set(ids) & set(names.all_special_ids)
        assert names.decode(ids) == text
    assert names(text, split_special_tokens=True).input_ids == ids
    assert names.eos_token_id in names(text).input_ids


@settings(max_examples=300, deadline=None)
@given_text(
    lists(sampled_from(["<|im_end|>", "<|", "im_start", "|>", "<|endoftext|>", "<|pad|>", "<|fim_", "x", " ", "\n"]))
)
def test_no_text_makes_a_control_token(trained: tuple[Path, Counts], pieces: list[str]) -> None:
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
def test_digits_can_be_taken_together(given: Artifact, tmp_path: Path, digits: int) -> None:
    """With `digits: 3` up to three digits may share a token and never four; both encoders agree."""
    config = TokenizerConfig(vocab_size=800, digits=digits)  # type: ignore[arg-type]
    folder, _, _ = made(tmp_path, config, given)
    encoder = Encoder(folder)
    numbers = [str(number) for number in range(0, 100_000, 7)]
    assert encoder.fast is not None and encoder.agrees([*numbers, *(f"a{one}b, {one}" for one in numbers)])
    names: Any = AutoTokenizer.from_pretrained(folder)
    pieces = names.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a 90210")
    assert [text for text, _ in pieces] == ["a", "Ġ", *(["90", "21", "0"] if digits == 2 else ["902", "10"])]
    assert {1, 2} <= {len(token) for one in numbers for token in names.tokenize(one)} <= set(range(1, digits + 1))


def test_every_text_comes_back(names: Any, trained: tuple[Path, Counts]) -> None:
    """All 256 bytes are in the alphabet, so text in scripts that nobody trained on round-trips."""
    text = "".join(chr(code) for code in range(0x3000)) + " 漢字 \U0001f600\r\n\t  x  "
    assert names.decode(names(text).input_ids) == text
    assert [gate["passed"] for gate in trained[1].gates] == [True]


def test_both_encoders_give_the_same_ids(trained: tuple[Path, Counts]) -> None:
    """fastokens, where installed, gives Hugging Face's ids for every document and for odd characters."""
    encoder = Encoder(trained[0])
    assert encoder.fast is not None
    texts = [some["text"] for some in rows(100)] + ["", " ", "\n\n \n", "a\u0301e\u200d\U0001f468", "<|im_end|>"]
    assert encoder.agrees(texts)
    assert [ids.tolist() for ids in encoder.encode(texts)] == [ids.tolist() for ids in encoder.reference(texts)]


def test_bytes_follow_from_documents_and_settings_alone(given: Artifact, trained: tuple[Path, Counts], tmp_path: Path):
    """Other files, another order and another number of threads give the same bytes."""
    other = documents(tmp_path / "other", list(reversed(rows(300))), files=7)
    script = (
        "import sys; from pathlib import Path; from tests.data_curation.corpus import artifact\n"
        "from tests.data_curation.test_tokenizer import CONFIG, made\n"
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


def test_quality_is_measured_on_unseen_documents(given: Artifact, trained: tuple[Path, Counts], names: Any) -> None:
    """Bytes per token are those of documents outside the sample, over all and by language."""
    sample = Sample.of(CONFIG, given)
    assert sample.train <= sample.measure < 1
    unseen = list(sample.measured())
    assert 0 < len(unseen) < 100
    metrics = trained[1].metrics
    for language, name in ((None, "bytes_per_token"), ("xa", "bytes_per_token_xa")):
        texts = [text for text, its, _ in unseen if language in (None, its)]
        ratio = sum(len(text.encode()) for text in texts) / sum(len(names(text).input_ids) for text in texts)
        assert metrics[name]["value"] == pytest.approx(ratio)
        assert metrics[name]["n"] == len(texts)


def test_quality_is_told_by_source_and_beside_a_reference(
    given: Artifact, trained: tuple[Path, Counts], tmp_path: Path
):
    """A reference with fewer merges needs more tokens on the same documents, over all, by language and by source."""
    small, _, _ = made(tmp_path / "small", TokenizerConfig(vocab_size=280), given)
    folder, counts, _ = made(tmp_path / "made", TokenizerConfig(vocab_size=400, reference=str(small)), given)
    assert (folder / "tokenizer.json").read_bytes() == (trained[0] / "tokenizer.json").read_bytes()
    mine, other = Encoder(folder), Encoder(small)
    unseen = [text for text, _, source in Sample.of(CONFIG, given).measured() if source == "source 1"]
    tokens = [sum(len(ids) for ids in encoder.reference(unseen)) for encoder in (mine, other)]
    found = counts.metrics["tokens_against_reference_source_source 1"]
    assert found["value"] == pytest.approx(tokens[0] / tokens[1]) and found["n"] == len(unseen)
    for name in ("", "_xa", "_xb", "_source_source 0"):
        assert 0 < counts.metrics[f"tokens_against_reference{name}"]["value"] < 1
        assert counts.metrics[f"bytes_per_token{name}"]["value"] > 1


def test_a_tokenizer_without_chat_is_made_fit(given: Artifact, trained: tuple[Path, Counts], tmp_path: Path) -> None:
    """With `chat: chatml` our tokens are added at its end, the old ids stay, and conversations end in EOS."""
    plain = tmp_path / "plain"
    plain.mkdir()
    data = json.loads((trained[0] / "tokenizer.json").read_text())
    data["added_tokens"] = data["added_tokens"][:1]  # <|endoftext|> alone, as in GPT-2
    with_holes = {token: number for token, number in data["model"]["vocab"].items() if number == 0 or number > 6}
    data["model"]["vocab"] = {token: max(0, number - 6) for token, number in with_holes.items()}
    (plain / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="eos_token is None"):
        made(tmp_path / "as it is", TokenizerConfig(path=str(plain)), given)
    folder, counts, _ = made(tmp_path / "made", TokenizerConfig(path=str(plain), chat="chatml"), given)
    names: Any = AutoTokenizer.from_pretrained(folder)
    assert names.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|fim_suffix|>"]) == [0, 394, 399]
    texts = ["da ce di 2026"]
    assert Encoder(folder).encode(texts)[0].tolist() == Encoder(plain).encode(texts)[0].tolist()
    assert counts.gates[0]["passed"]
    data["model"]["vocab"] = with_holes
    (plain / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="its numbers have holes"):
        made(tmp_path / "holes", TokenizerConfig(path=str(plain), chat="chatml"), given)


def test_a_tokenizer_comes_from_a_hub(trained: tuple[Path, Counts], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A name on a hub, here in the client's own cache, stands for the folder's bytes; an unknown one is named."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    home = tmp_path / "models--some--one"
    (home / "refs").mkdir(parents=True)
    (home / "refs/main").write_text(commit)
    shutil.copytree(trained[0], home / "snapshots" / commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    from_hub = [TokenizerConfig(path=f"hub://some/one{revision}").identity() for revision in ("", f"@{commit}")]
    assert from_hub == [TokenizerConfig(path=str(trained[0])).identity()] * 2
    with pytest.raises(ConfigError, match=r"tokenizer\.path: hub://some/other could not be fetched"):
        TokenizerConfig(path="hub://some/other").identity()


def test_unused_entries_are_counted(given: Artifact, names: Any, trained: tuple[Path, Counts]) -> None:
    """What no document of the sample contains: most of the 256 bytes here."""
    sample = Sample.of(CONFIG, given)
    seen = {
        token for text, _, _ in [*sample.rows(0, sample.train), *sample.measured()] for token in names(text).input_ids
    }
    assert trained[1].metrics["unused_entries"]["value"] == 400 - 7 - len(seen)


def test_a_given_folder_is_copied(trained: tuple[Path, Counts], given: Artifact, tmp_path: Path) -> None:
    """Its files come out as they are, and the key follows from their bytes, not from where they lie."""
    copies = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for file in trained[0].iterdir():
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
        copies.append(TokenizerConfig(path=str(tmp_path / name)))
    assert copies[0].identity() == copies[1].identity()
    folder, _, place = made(tmp_path / "made", copies[0], given)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        file.name: file.read_bytes() for file in trained[0].iterdir()
    }
    assert list(parts_of(place.pieces())) == ["tokenizer"]
    (tmp_path / "b/chat_template.jinja").write_text("{{ messages }}")
    assert copies[0].identity() != copies[1].identity()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("+ '<|im_end|>' -}}{%- endgeneration", "+ '<|im_end|>\\n' -}}{%- endgeneration", "last trained token"),
        ("generation", "set x = 1", "generation"),
    ],
)
def test_a_template_that_spoils_training_is_refused(
    trained: tuple[Path, Counts], given: Artifact, tmp_path: Path, old: str, new: str, words: str
) -> None:
    """A given tokenizer must mark the answers and end them with EOS."""
    for file in trained[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    template = (tmp_path / "chat_template.jinja").read_text().replace(old, new).replace("endset x = 1", "set y = 1")
    (tmp_path / "chat_template.jinja").write_text(template)
    with pytest.raises(InputError, match=words):
        made(tmp_path / "made", TokenizerConfig(path=str(tmp_path)), given)


def test_a_tokenizer_without_padding_is_refused(trained: tuple[Path, Counts], given: Artifact, tmp_path: Path) -> None:
    """Padding with EOS would hide where an answer ends."""
    for file in trained[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "pad_token": "<|im_end|>"}))
    with pytest.raises(InputError, match="pad_token"):
        made(tmp_path / "made", TokenizerConfig(path=str(tmp_path)), given)


def test_wrong_input_is_named(tmp_path: Path) -> None:
    """No text, a folder without tokenizer and a broken expression each get a line that says so."""
    empty = documents(tmp_path / "empty", [row("a", ""), row("b", "")])
    with pytest.raises(InputError, match="2 documents with no text"):
        made(tmp_path / "1", CONFIG, empty)
    with pytest.raises(ConfigError, match=r"tokenizer\.path: no tokenizer\.json"):
        TokenizerConfig(path=str(tmp_path)).identity()
    with pytest.raises(ConfigError, match=r"tokenizer\.pattern"):
        made(tmp_path / "2", TokenizerConfig(pattern="("), documents(tmp_path / "some", rows(20)))


def test_a_small_sample_is_said(tmp_path: Path) -> None:
    """A vocabulary that the text cannot fill leads to a warning with both numbers."""
    _, counts, _ = made(tmp_path / "made", TokenizerConfig(vocab_size=5000), documents(tmp_path / "few", rows(10)))
    assert any("vocab_size is 5000" in warning for warning in counts.warnings)
