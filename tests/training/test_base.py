"""An existing base model: its weights and tokens stay, what chat needs is added, what does not fit is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from data_curation.artifact import Artifact
from data_curation.place import Place
from data_curation.settings import ConfigError
from data_curation.tokenizer import TokenizerConfig
from data_curation.tokenizer_files import NAMES, SPECIAL, add_chat
from flows.config import load
from tests.training.conftest import artifact
from training.base import WEIGHTS, BaseConfig, base
from training.chat import check_contract


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A Llama in bfloat16 with a tokenizer of its own that knows no chat, as others publish them."""
    folder = tmp_path / "foreign"
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(False)
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["</s>"], initial_alphabet=alphabet)
    words.train_from_iterator(["a number of words and numbers of words"] * 9, trainer)
    shape = LlamaConfig(
        vocab_size=words.get_vocab_size(), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(1)
    LlamaForCausalLM(shape).to(torch.bfloat16).save_pretrained(folder)
    words.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    return folder


def fit_for_chat(foreign: Path, home: Path) -> Artifact:
    """What the stage `tokenizer` makes of a given one with `chat: chatml`."""
    shutil.copytree(foreign, home / "tokenizer", ignore=shutil.ignore_patterns("*.safetensors", "*config.json"))
    add_chat(home / "tokenizer")
    return artifact("tokenizer", home)


def test_weights_and_numbers_stay(foreign: Path, tmp_path: Path, new_place: Callable[..., Place]) -> None:
    """The old rows are the old bytes, new ones are there for the chat tokens, the same in every run; chat is ready."""
    tokenizer = fit_for_chat(foreign, tmp_path / "fit")
    places = [new_place("one"), new_place("two")]
    counts = [base(BaseConfig(path=str(foreign)), tokenizer, place) for place in places]
    first, second = (Path(place.home, "model", "model.safetensors").read_bytes() for place in places)
    assert first == second
    folder = Path(places[0].home, "model")
    before: Any = AutoModelForCausalLM.from_pretrained(foreign)
    after: Any = AutoModelForCausalLM.from_pretrained(folder)
    words: Any = AutoTokenizer.from_pretrained(folder)
    old, new = before.get_input_embeddings().weight, after.get_input_embeddings().weight
    assert after.dtype == torch.bfloat16 and torch.equal(new[: len(old)], old) and len(new) == len(words)
    assert counts[0].made == {"models": 1, "new tokens": len(SPECIAL)} and len(new) == len(old) + len(SPECIAL)
    assert check_contract(words, folder)
    assert base(BaseConfig(path=str(foreign)), tokenizer, places[0]).made == counts[0].made


def test_another_tokenizer_is_refused(foreign: Path, chat_tokenizer: Path, new_place: Callable[..., Place]) -> None:
    """A model would read other tokens than those it has learnt; one token with its number is shown."""
    other = artifact("tokenizer", chat_tokenizer.parent)
    with pytest.raises(ConfigError, match=r"tokenizer.path is not the tokenizer of base.path: .* tokens have another"):
        base(BaseConfig(path=str(foreign)), other, new_place())
    (foreign / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"no tokenizer\.json in"):
        base(BaseConfig(path=str(foreign)), other, new_place("none"))


def test_the_key_is_the_content(foreign: Path, tmp_path: Path) -> None:
    """Copies are the same model, other weights another; a hub's model is pinned; no weights are an error at once."""
    copy = shutil.copytree(foreign, tmp_path / "copy")
    same = BaseConfig(path=str(foreign)).identity()
    assert same == BaseConfig(path=str(copy)).identity() and str(foreign) not in json.dumps(same)
    with (copy / "model.safetensors").open("ab") as weights:
        weights.write(b"x")
    assert BaseConfig(path=str(copy)).identity() != same
    pinned = f"hub://owner/name@{'0' * 40}"
    assert BaseConfig(path=pinned).identity() == {"path": pinned}
    for path in ("hub://owner/name", "hub://owner/name@main"):
        with pytest.raises(ConfigError, match="pin the commit"):
            BaseConfig(path=path).identity()
    (copy / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"holds no config\.json with safetensors"):
        BaseConfig(path=str(copy)).identity()


def test_a_pinned_model_comes_from_a_hub(foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its commit, weights and tokenizer files together, so that neither stage finds half of it; errors are said."""
    asked: list[Any] = []

    def download(name: str, revision: str, allow_patterns: list[str]) -> str:
        asked.append((name, revision, set(allow_patterns)))
        return str(foreign)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    config = BaseConfig(path=f"hub://owner/name@{'0' * 40}")
    assert config.folder() == foreign and asked == [("owner/name", "0" * 40, {*WEIGHTS, *NAMES})]

    def fail(*_: Any, **__: Any) -> str:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(ConfigError, match=r"base\.path: hub://.* could not be fetched \(OSError: no network\)"):
        config.folder()


def test_a_base_needs_its_tokenizer() -> None:
    """Said when the configuration is read."""
    with pytest.raises(ConfigError, match=r"base.path needs tokenizer.path"):
        load("demo", ["base.path=model"])
    assert load("demo", ["base.path=model", "tokenizer.path=model"]).tokenizer == TokenizerConfig(
        path="model", vocab_size=4096, sample_bytes=6_000_000
    )
