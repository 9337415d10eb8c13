"""Somebody's base model in place of `pretrain`: its weights, with the road's tokenizer and what chat needs."""

import re
from pathlib import Path
from typing import Any

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.files import sha256_file
from data_curation.place import Place
from data_curation.settings import ConfigError, Settings, sha256_of
from data_curation.tokenizer_files import HUB, NAMES, fetched

WEIGHTS = ("config.json", "*.safetensors", "*.safetensors.index.json")
_PINNED = re.compile(HUB + r"[^@]+@[0-9a-f]{40}")


class BaseConfig(Settings):
    """An existing model that the road goes on from."""

    path: str = ""
    """A model to tune in place of one of our own: a folder in Hugging Face's format with safetensors, whose bytes are
    part of the key, or hub://OWNER/NAME@COMMIT. `tokenizer.path` must name its tokenizer; where that has no template
    fit for training, `tokenizer.chat: chatml` adds ours. Empty: the road pretrains its own."""

    def identity(self) -> dict[str, Any]:
        """A folder counts by its files' bytes, a pinned model of the hub by its name and commit.

        Raises ConfigError, before any work, for a folder without weights and for a model of the hub that is not pinned.
        """
        if not self.path or self.path.startswith(HUB):
            self._check_pinned()
            return super().identity()
        return {"path": sha256_of({file.name: sha256_file(str(file)) for file in self._files(Path(self.path))})}

    def folder(self) -> Path:
        """Where the model lies on this machine, fetched from the hub if it is there."""
        if not self.path.startswith(HUB):
            return Path(self.path)
        self._check_pinned()
        # What `tokenizer.path` has fetched of it lacks the weights; and of ours it must find all that it asks for.
        return fetched(self.path, "base.path", [*WEIGHTS, *NAMES], cached=False)

    def _check_pinned(self) -> None:
        if self.path and not _PINNED.fullmatch(self.path):
            raise ConfigError(
                f"base.path is {self.path}: pin the commit (hub://OWNER/NAME@ and its 40 digits), so that a run says "
                "what it was made of"
            )

    def _files(self, folder: Path) -> list[Path]:
        found = sorted(file for pattern in WEIGHTS for file in folder.glob(pattern))
        if not {".json", ".safetensors"} <= {file.suffix for file in found}:
            raise ConfigError(f"base.path: {folder} holds no config.json with safetensors: give a model's folder")
        return found


def base(config: BaseConfig, tokenizer: Artifact, place: Place) -> Counts:
    """Part `model`: the given model with the road's tokenizer; tokens that are new to it are added to its matrices."""
    finished = place.done("model")
    if finished is not None:
        return finished.counts
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from training.chat import check_contract
    from training.trainers import save_model

    source, own = config.folder(), tokenizer.folder("tokenizer", place.scratch)
    words: Any = AutoTokenizer.from_pretrained(own)
    _check_tokenizer(source, words)
    model: Any = AutoModelForCausalLM.from_pretrained(source, dtype="auto")
    known = model.get_input_embeddings().num_embeddings
    if len(words) > known:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            # Rows as the model's own first ones were; round the mean of the others they would depend on the threads.
            model.resize_token_embeddings(len(words), mean_resizing=False)
    out = place.scratch / "model"
    save_model(model, own, out, words.eos_token_id, words.pad_token_id)
    check_contract(words, out)
    counts = Counts(taken={"parameters": model.num_parameters()}, made={"models": 1})
    counts.made["new tokens"] = max(0, len(words) - known)
    with place.piece("model") as piece:
        piece.send("model", out)
        piece.piece.counts = counts
    return counts


def _check_tokenizer(source: Path, words: Any) -> None:
    """Every token of the model's own tokenizer must have its number in the road's."""
    from tokenizers import Tokenizer

    path = source / "tokenizer.json"
    if not path.is_file():
        raise ConfigError(f"base.path: no tokenizer.json in {source}: lay the model's own beside its weights")
    theirs, ours = Tokenizer.from_file(str(path)).get_vocab(), words.get_vocab()
    other = [token for token, number in theirs.items() if ours.get(token) != number]
    if other:
        raise ConfigError(
            f"tokenizer.path is not the tokenizer of base.path: {len(other):,} of its {len(theirs):,} tokens have "
            f"another number, {other[0]!r} for one: set tokenizer.path to the same model"
        )
