"""Guarantees of the models: documents stay apart, folders are plain, bytes follow from the seed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_curation.files import sha256_file
from data_curation.settings import InputError
from training import model as models
from training.architecture import ModelConfig, Rope
from training.decoder import Decoder
from training.layout import layout_of
from training.model import Packing

CPU = torch.device("cpu")
PLAIN = Rope(theta=10_000.0)
DOCUMENTS = np.array([[0, 0, 0, 0, 0, 1, 1, 1], [0] * 8, [0, 1, 1, 1, 2, 2, -1, -1]])


def small(family: str) -> ModelConfig:
    """Two layers, grouped heads."""
    return ModelConfig(family=family, hidden_size=32, layers=2, heads=4, kv_heads=2, intermediate_size=48)


@pytest.fixture(scope="module")
def tokenizer(chat_tokenizer: Path) -> Any:
    """The tiny tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(chat_tokenizer)


def losses(model: Any, packing: Packing) -> torch.Tensor:
    """Loss of every token of three packed rows."""
    tokens = torch.arange(24).view(3, 8) * 7 % 200 + 20
    starts = np.diff(DOCUMENTS, axis=1, prepend=-9) != 0
    positions = np.arange(8) - np.maximum.accumulate(np.where(starts, np.arange(8), 0), axis=1)
    return models.token_losses(model, tokens, tokens.roll(-1), torch.from_numpy(positions), packing)


def test_packing_finds_every_piece() -> None:
    """Pieces are runs of one number within a row; rows of one piece need no mask."""
    packing = Packing.of(DOCUMENTS, CPU)
    assert packing.pieces == [(0, 0, 5), (0, 5, 8), (1, 0, 8), (2, 0, 1), (2, 1, 4), (2, 4, 6), (2, 6, 8)]
    assert not packing.alone and Packing.of(DOCUMENTS[1:2], CPU).alone


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_packed_documents_are_as_if_alone(family: str, tokenizer: Any) -> None:
    """Every piece has the losses that transformers' own attention gives it in a batch of its own."""
    model = models.build(small(family), tokenizer, PLAIN, 8, seed=1).eval()
    packing = Packing.of(DOCUMENTS, CPU)
    packed = losses(model, packing)
    tokens = torch.arange(24).view(3, 8) * 7 % 200 + 20
    labels = tokens.roll(-1)
    model.set_attn_implementation("eager")
    for row, start, stop in packing.pieces:
        logits = model(input_ids=tokens[row : row + 1, start:stop]).logits[0]
        alone = torch.nn.functional.cross_entropy(logits, labels[row, start:stop], reduction="none")
        torch.testing.assert_close(packed[row, start:stop], alone, atol=2e-5, rtol=1e-5)


def test_the_mask_of_a_gpu_gives_the_losses_of_the_pieces(tokenizer: Any) -> None:
    """Both forms of packing are one function, gradients included."""
    model = models.build(small("llama"), tokenizer, PLAIN, 8, seed=1)
    by_piece = Packing.of(DOCUMENTS, CPU)
    mask = models.mask_of(DOCUMENTS, CPU)
    found = []
    for packing in (by_piece, Packing(by_piece.pieces, False, mask)):
        model.zero_grad()
        loss = losses(model, packing).sum()
        loss.backward()
        found.append([loss.detach(), *(parameter.grad for parameter in model.parameters())])
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


def test_attention_without_packing_is_refused(tokenizer: Any) -> None:
    """A padded batch would be read wrongly, so a forward pass without packing is an error."""
    model = models.build(small("llama"), tokenizer, PLAIN, 8, seed=1)
    with pytest.raises(ValueError, match="needs packing="):
        model(input_ids=torch.ones(1, 4, dtype=torch.long))


def test_weights_follow_from_the_seed(tokenizer: Any) -> None:
    """Equal seeds give equal weights and leave the caller's random numbers alone; another seed gives others."""
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, same, other = (models.build(small("qwen3"), tokenizer, PLAIN, 8, seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_a_saved_folder_is_plain_and_its_bytes_follow_from_the_weights(
    tokenizer: Any, chat_tokenizer: Path, tmp_path: Path
) -> None:
    """Saved twice the files are equal; transformers loads them with no trace of our attention."""
    from transformers import AutoModelForCausalLM

    model = models.build(small("qwen3"), tokenizer, PLAIN, 8, seed=1)
    for name in ("one", "two"):
        models.save(model, tokenizer, chat_tokenizer, tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert [sha256_file(str(tmp_path / "one" / name)) for name in files] == [
        sha256_file(str(tmp_path / "two" / name)) for name in files
    ]
    assert models.PACKED not in (tmp_path / "one" / "config.json").read_text()
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "one").config._attn_implementation == "sdpa"
    loaded = models.load(tmp_path / "one", Rope(theta=50_000.0), max_positions=16)
    expected = models.build(small("qwen3"), tokenizer, Rope(theta=50_000.0), 16, seed=1)
    assert torch.equal(loaded.model.rotary_emb.inv_freq, expected.model.rotary_emb.inv_freq)
    packing = Packing.of(DOCUMENTS, CPU)
    assert torch.equal(losses(loaded.eval(), packing), losses(expected.eval(), packing))


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_stretched_positions_are_those_that_transformers_reads_from_the_folder(
    family: str, tokenizer: Any, chat_tokenizer: Path, tmp_path: Path
) -> None:
    """A model with YaRN, saved: our logits are transformers' at four times the original length, not those without."""
    from transformers import AutoModelForCausalLM

    strong = small(family).model_copy(update={"initializer_range": 0.3})
    folders = [tmp_path / "plain", tmp_path / "stretched"]
    models.save(models.build(strong, tokenizer, PLAIN, 16, seed=1), tokenizer, chat_tokenizer, folders[0])
    stretched = models.load(folders[0], Rope(theta=10_000.0, factor=4.0, original=16), max_positions=64)
    models.save(stretched, tokenizer, chat_tokenizer, folders[1])
    theirs = [AutoModelForCausalLM.from_pretrained(folder) for folder in folders]
    assert [model.config.rope_parameters["rope_type"] for model in theirs] == ["default", "yarn"]
    tokens = torch.arange(64)[None] * 7 % 200 + 20
    layout = layout_of(np.zeros((1, 64), dtype=np.int64), CPU, "sdpa")
    decoder = Decoder(stretched, torch.float32, "sdpa", compile=False)
    with torch.no_grad():
        ours = decoder.hidden(tokens, torch.arange(64)[None], layout) @ stretched.lm_head.weight.T
        plain, yarn = (model(input_ids=tokens).logits[0] for model in theirs)
    torch.testing.assert_close(ours, yarn, atol=1e-3, rtol=1e-3)
    assert (plain - yarn)[16:].norm() > 0.1 * yarn[16:].norm()


def test_bytes_of_tokens_are_those_of_their_text(tokenizer: Any, chat_tokenizer: Path) -> None:
    """Their sum over a text is its UTF-8 length, control tokens count nothing."""
    sizes = models.bytes_of_tokens(chat_tokenizer)
    for text in ("plain words and 1234", "ünïcödé 漢字 🙂\n\ttabs"):
        assert sizes[tokenizer(text)["input_ids"]].sum() == len(text.encode())
    assert sizes[[tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id]].sum() == 0


def test_bytes_of_other_tokenizers_are_not_guessed(tmp_path: Path) -> None:
    """A tokenizer whose characters do not stand for bytes is refused by name."""
    (tmp_path / "tokenizer.json").write_text('{"decoder": {"type": "Metaspace"}, "model": {"vocab": {}}}')
    with pytest.raises(InputError, match="not a byte-level tokenizer"):
        models.bytes_of_tokens(tmp_path)
