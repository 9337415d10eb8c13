"""Ready tokenizers: copied byte for byte, made fit for chat, refused where they would spoil training."""

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from transformers import AutoTokenizer

from data_curation.artifact import Artifact
from data_curation.encoding import Encoder
from data_curation.place import parts_of
from data_curation.settings import ConfigError, InputError
from data_curation.tokenizer import TokenizerConfig
from tests.data_curation.tokenizers import Trained, made


def test_a_tokenizer_without_chat_is_made_fit(texts: Artifact, trained: Trained, tmp_path: Path) -> None:
    """With `chat: chatml` our tokens are added at its end, the old ids stay, and conversations end in EOS."""
    plain = tmp_path / "plain"
    plain.mkdir()
    data = json.loads((trained[0] / "tokenizer.json").read_text())
    data["added_tokens"] = data["added_tokens"][:1]  # <|endoftext|> alone, as in GPT-2
    with_holes = {token: number for token, number in data["model"]["vocab"].items() if number == 0 or number > 6}
    data["model"]["vocab"] = {token: max(0, number - 6) for token, number in with_holes.items()}
    (plain / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="eos_token is None"):
        made(tmp_path / "as it is", TokenizerConfig(path=str(plain)), texts)
    folder, counts, _ = made(tmp_path / "made", TokenizerConfig(path=str(plain), chat="chatml"), texts)
    names: Any = AutoTokenizer.from_pretrained(folder)
    assert names.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|fim_suffix|>"]) == [0, 394, 399]
    some = ["da ce di 2026"]
    assert Encoder(folder).encode(some)[0].tolist() == Encoder(plain).encode(some)[0].tolist()
    assert counts.gates[0]["passed"]
    data["model"]["vocab"] = with_holes
    (plain / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="its numbers have holes"):
        made(tmp_path / "holes", TokenizerConfig(path=str(plain), chat="chatml"), texts)


def test_a_tokenizer_comes_from_a_hub(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
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


def test_a_given_folder_is_copied(trained: Trained, texts: Artifact, tmp_path: Path) -> None:
    """Its files come out as they are, and the key follows from their bytes, not from where they lie."""
    copies = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for file in trained[0].iterdir():
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
        copies.append(TokenizerConfig(path=str(tmp_path / name)))
    assert copies[0].identity() == copies[1].identity()
    folder, _, place = made(tmp_path / "made", copies[0], texts)
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
        (
            "{%- for message",
            "{%- for a in range(99999) -%}{%- for b in range(99999) -%}{%- endfor -%}{%- endfor -%}{%- for message",
            "does not come to an end",
        ),
    ],
)
def test_a_template_that_spoils_training_is_refused(
    trained: Trained, texts: Artifact, tmp_path: Path, old: str, new: str, words: str
) -> None:
    """A given tokenizer must mark the answers and end them with EOS."""
    for file in trained[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    template = (tmp_path / "chat_template.jinja").read_text().replace(old, new).replace("endset x = 1", "set y = 1")
    (tmp_path / "chat_template.jinja").write_text(template)
    with pytest.raises(InputError, match=words):
        made(tmp_path / "made", TokenizerConfig(path=str(tmp_path)), texts)


def test_a_tokenizer_without_padding_is_refused(trained: Trained, texts: Artifact, tmp_path: Path) -> None:
    """Padding with EOS would hide where an answer ends."""
    for file in trained[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "pad_token": "<|im_end|>"}))
    with pytest.raises(InputError, match="pad_token"):
        made(tmp_path / "made", TokenizerConfig(path=str(tmp_path)), texts)
