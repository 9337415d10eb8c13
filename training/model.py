"""Decoder models of plain Hugging Face classes, with attention that never crosses a document's border."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    PreTrainedModel,
    Qwen3Config,
)

from data_curation.place import Place
from data_curation.settings import InputError
from training.loss import CHUNK
from training.trainers import device_of

if TYPE_CHECKING:
    from training.architecture import ModelConfig, Rope

FAMILIES = {"llama": LlamaConfig, "qwen3": Qwen3Config}
PACKED = "tokenmill_packed"
IGNORED = -100


@dataclass(frozen=True)
class Packing:
    """Where the documents lie in a batch, in the form that is fastest for the device."""

    pieces: list[tuple[int, int, int]]
    """(row, start, stop) of every document piece, in order; padding counts as pieces of its own."""
    alone: bool
    """Whether every row is one piece, so that plain causal attention is exact."""
    mask: Tensor | None = None
    """[rows, 1, seq_len, seq_len], true where a token may look; only where `pieces` would mean too many kernels."""

    @classmethod
    def of(cls, documents: np.ndarray, device: torch.device) -> "Packing":
        """From the documents' numbers per token, [rows, seq_len], -1 for padding."""
        rows, width = documents.shape
        starts = np.ones(documents.shape, dtype=bool)
        starts[:, 1:] = documents[:, 1:] != documents[:, :-1]
        first = np.flatnonzero(starts)
        pieces = [(int(a // width), int(a % width), int((b - 1) % width) + 1) for a, b in _pairs(first, rows * width)]
        alone = len(pieces) == rows
        return cls(pieces, alone, None if alone or device.type == "cpu" else mask_of(documents, device))


def mask_of(documents: np.ndarray, device: torch.device) -> Tensor:
    """Which token may look at which, [rows, 1, seq_len, seq_len]: earlier ones of its own document."""
    numbers = torch.from_numpy(documents).to(device)
    same = numbers[:, None, :, None] == numbers[:, None, None, :]
    return same & torch.ones(same.shape[-2:], dtype=torch.bool, device=device).tril()


def settle(place: Place) -> torch.device:
    """The device of this place; on a CPU the place's threads, whose number floating-point sums depend on."""
    device = torch.device(device_of(place))
    if device.type == "cpu":
        torch.set_num_threads(place.resources.threads)
    return device


def build(model: "ModelConfig", tokenizer: Any, rope: "Rope", max_positions: int, seed: int) -> Any:
    """A new model with float32 weights that follow from the seed."""
    config = FAMILIES[model.family](
        vocab_size=len(tokenizer),
        hidden_size=model.hidden_size,
        intermediate_size=model.intermediate_size,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.kv_heads,
        head_dim=model.head_width,
        tie_word_embeddings=model.tie_embeddings,
        initializer_range=model.initializer_range,
        max_position_embeddings=max_positions,
        rope_parameters=rope.parameters(),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=PACKED)


def load(folder: Path, rope: "Rope | None" = None, max_positions: int | None = None) -> Any:
    """A model from a Hugging Face folder, float32, with other rotary positions where they are given."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=PACKED)
    if rope is not None and max_positions is not None:
        model.config.rope_parameters = rope.parameters()
        model.config.max_position_embeddings = max_positions
        # The frequencies are computed once, from the config that the module was made with.
        model.model.rotary_emb = type(model.model.rotary_emb)(config=model.config)
    return model


def save(model: PreTrainedModel, tokenizer: Any, tokenizer_folder: Path, out: Path) -> None:
    """A plain Hugging Face folder: weights, config, generation config, the tokenizer's files copied as they are."""
    out.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(out)
    for path in sorted(tokenizer_folder.iterdir()):
        shutil.copyfile(path, out / path.name)


def token_losses(model: Any, tokens: Tensor, labels: Tensor, positions: Tensor, packing: Packing) -> Tensor:
    """Cross entropy of every token in nats, float32 [rows, seq_len], 0 where the label is -100."""
    hidden = model.model(input_ids=tokens, position_ids=positions, use_cache=False, packing=packing).last_hidden_state
    # Of 128k tokens all logits at once would take 17 GB.
    losses = [
        cross_entropy(model.lm_head(some).float(), label, ignore_index=IGNORED, reduction="none")
        for some, label in zip(hidden.flatten(0, 1).split(CHUNK), labels.flatten().split(CHUNK), strict=True)
    ]
    return torch.cat(losses).view(labels.shape)


def bytes_of_tokens(tokenizer_folder: Path) -> np.ndarray:
    """UTF-8 bytes that each token of a byte-level tokenizer stands for, int64 [vocabulary]; 0 for control tokens."""
    data = json.loads((tokenizer_folder / "tokenizer.json").read_text())
    if "ByteLevel" not in json.dumps(data["decoder"]):
        raise InputError(f"{tokenizer_folder}/tokenizer.json: not a byte-level tokenizer: bits per byte are unknown")
    # In a byte-level vocabulary every character of a token's name stands for one byte.
    vocabulary = data["model"]["vocab"] | {token["content"]: token["id"] for token in data["added_tokens"]}
    lengths = np.zeros(max(vocabulary.values()) + 1, dtype=np.int64)
    for name, number in vocabulary.items():
        lengths[number] = len(name)
    lengths[[token["id"] for token in data["added_tokens"]]] = 0
    return lengths


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, packing: Packing | None = None, **_: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """transformers' attention interface: query [rows, heads, seq_len, width] -> ([rows, seq_len, heads, width], None).

    Piece by piece on a CPU: no time goes into pairs of tokens that may not see each other.
    """
    shared: dict[str, Any] = {"scale": scaling, "enable_gqa": query.shape[1] != key.shape[1]}
    if packing is None:
        raise ValueError(f"attention {PACKED} needs packing=: set_attn_implementation('sdpa') for everything else")
    if packing.alone:
        out = scaled_dot_product_attention(query, key, value, is_causal=True, **shared)
        return out.transpose(1, 2), None
    if packing.mask is not None:
        out = scaled_dot_product_attention(query, key, value, attn_mask=packing.mask, **shared)
        return out.transpose(1, 2), None
    outs: list[Tensor] = []
    for row, start, stop in packing.pieces:
        share = (slice(row, row + 1), slice(None), slice(start, stop))
        out = scaled_dot_product_attention(query[share], key[share], value[share], is_causal=True, **shared)
        outs.append(out[0].transpose(0, 1))
    rows, heads, width, size = query.shape
    return torch.cat(outs).view(rows, width, heads, size), None


def _no_mask(*_: Any, **__: Any) -> None:
    """The mask of packed attention is in its packing."""


def _pairs(first: np.ndarray, end: int) -> zip:  # type: ignore[type-arg]
    return zip(first, np.append(first[1:], end), strict=True)


AttentionInterface.register(PACKED, _attend)
AttentionMaskInterface.register(PACKED, _no_mask)
