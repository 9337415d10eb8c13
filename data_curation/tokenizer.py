"""Byte-level BPE with chat tokens, trained on a sample of the documents, or a given tokenizer."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.documents import read_rows
from data_curation.encoding import SEPARATOR, Encoder
from data_curation.files import sha256_file
from data_curation.place import Place
from data_curation.progress import Progress
from data_curation.settings import ConfigError, InputError, Settings, sha256_of
from data_curation.tokenizer_quality import measure

END_OF_TURN, PAD = "<|im_end|>", "<|pad|>"
SPECIAL = [SEPARATOR, "<|im_start|>", END_OF_TURN, PAD, "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"]
# The newline stands before the NEXT turn, so that the last token an answer is trained on is the end of the turn.
TEMPLATE = """\
{%- for message in messages -%}
{{- ('' if loop.first else '\\n') + '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['role'] == 'assistant' -%}
{%- generation -%}{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}
{%- else -%}
{{- message['content'] + '<|im_end|>' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '\\n<|im_start|>assistant\\n' -}}{%- endif -%}
"""
MEASURED = 0.05  # share of the documents that are not trained on but measured, and at most
MEASURED_BYTES = 16 * 2**20
COUNTED_BYTES = 32 * 2**20  # of the training sample, encoded to see which entries are used


class TokenizerConfig(Settings):
    """How the tokenizer comes into being."""

    path: str = ""
    """Folder of a ready tokenizer to copy instead of training one; its content, not its place, is part of the key."""
    vocab_size: int = Field(default=32768, ge=256 + len(SPECIAL))
    """Entries in all: 256 bytes, special tokens, merges. Below 65,537 the shards take two bytes a token."""
    sample_bytes: int = Field(default=256 * 2**20, gt=0)
    """UTF-8 bytes of documents to train on, chosen by the hash of their ids; about 30 s for 100 MB."""
    pattern: str = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}|"
        r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    """Regular expression (Oniguruma) whose matches no merge may cross; the default takes digits one by one."""
    seed: int = 0
    """Chooses which documents are in the sample."""

    def identity(self) -> dict[str, Any]:
        """As for every section, but a given folder counts by its files' bytes."""
        data = super().identity()
        if self.path:
            data["path"] = sha256_of({file.name: sha256_file(str(file)) for file in _given(self.path)})
        return data


def tokenizer(config: TokenizerConfig, documents: Artifact, place: Place) -> Counts:
    """Publish part `tokenizer`, a plain AutoTokenizer folder, and measure it on documents it was not trained on."""
    sample = Sample.of(config, documents)
    done = place.done("tokenizer")
    if done is None:
        folder = place.scratch / "tokenizer"
        folder.mkdir(parents=True, exist_ok=True)
        if config.path:
            for file in _given(config.path):
                (folder / file.name).write_bytes(file.read_bytes())
        else:
            _write_folder(folder, train(config, sample, place))
        check_contract(folder)
        with place.piece("tokenizer") as piece:
            piece.send("tokenizer", folder)
        done = piece.piece
    counts = measure(place.folder(done, "tokenizer"), sample.measured(), sample.rows(0, sample.counted), place)
    counts.taken = {"documents": sample.documents, "bytes": sample.bytes}
    if counts.made["entries"] < config.vocab_size and not config.path:
        counts.warnings.append(
            f"tokenizer.vocab_size is {config.vocab_size}, but the sample gave only {counts.made['entries']} entries: "
            "lower it, or give more documents"
        )
    return counts


@dataclass(frozen=True)
class Sample:
    """Which documents are trained on and which are measured: a function of seed and ids, not of files or order."""

    uris: list[str]
    seed: int
    train: float
    """Documents whose hash / 2^64 lies below are trained on."""
    measure: float
    """Documents whose hash / 2^64 lies at or above are measured."""
    counted: float
    """Trained documents below this are encoded once more to see which entries are used."""
    documents: int
    bytes: int

    @classmethod
    def of(cls, config: TokenizerConfig, documents: Artifact) -> "Sample":
        """Count all documents once and derive the two shares from their bytes."""
        uris, number, size = documents.uris("documents"), 0, 0
        for uri in uris:
            for row in read_rows(uri, ["text"]):
                number += 1
                size += len((row["text"] or "").encode())
        if size == 0:
            raise InputError(f"{documents.name}: {number} documents with no text at all; nothing to train on")
        measure = 1 - min(MEASURED, MEASURED_BYTES / size)
        train = min(measure, config.sample_bytes / size)
        return cls(uris, config.seed, train, measure, min(train, COUNTED_BYTES / size), number, size)

    def measured(self) -> Iterator[tuple[str, str]]:
        """The documents to measure; of a handful none may be left for that, then those that were trained on."""
        found = False
        for row in self.rows(self.measure, 1):
            found = True
            yield row
        if not found:
            yield from self.rows(0, self.measure)

    def rows(self, low: float, high: float) -> Iterator[tuple[str, str]]:
        """(text, language) of the documents whose hash / 2^64 lies in [low, high)."""
        import xxhash

        for uri in self.uris:
            for row in read_rows(uri, ["id", "text", "language"]):
                if row["text"] and low <= xxhash.xxh3_64_intdigest(row["id"], self.seed) / 2**64 < high:
                    yield row["text"], row["language"] or "unknown"


def train(config: TokenizerConfig, sample: Sample, place: Place) -> Any:
    """A trained `tokenizers.Tokenizer`. Training sees only word counts, so files, order and threads do not matter."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    try:
        split = pre_tokenizers.Split(Regex(config.pattern), "isolated")
    except Exception as error:  # the binding raises bare Exception for a wrong expression
        raise ConfigError(f"tokenizer.pattern: no valid regular expression ({error}): {config.pattern}") from error
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])  # type: ignore[assignment]
    made.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=SPECIAL,  # type: ignore[arg-type]
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    progress = place.progress("documents")
    made.train_from_iterator(_counted(sample.rows(0, sample.train), progress), trainer)
    return made


def check_contract(folder: Path) -> None:
    """Refuse a tokenizer whose chat template or special tokens would spoil training later on."""
    from transformers import AutoTokenizer

    made: Any = AutoTokenizer.from_pretrained(str(folder))
    if made.eos_token is None or made.pad_token is None or made.pad_token == made.eos_token:
        raise InputError(f"{folder}: eos_token is {made.eos_token!r}, pad_token {made.pad_token!r}; two are needed")
    if not made.chat_template or "generation" not in made.chat_template:
        raise InputError(f"{folder}: its chat template needs {{% generation %}} markers around the assistant's words")
    turns = [{"role": role, "content": "a"} for role in ("system", "user", "assistant", "user", "assistant")]
    found = made.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
    trained = [token for token, mask in zip(found["input_ids"], found["assistant_masks"], strict=True) if mask]
    if not trained or trained[-1] != made.eos_token_id:
        last = made.convert_ids_to_tokens(trained[-1:])
        raise InputError(f"{folder}: the last trained token of a conversation is {last}, not eos {made.eos_token!r}")
    Encoder(folder, fast=False)


def _write_folder(folder: Path, made: Any) -> None:
    # Written by hand, not by save_pretrained: no release of transformers may change the bytes.
    settings = {
        "bos_token": SEPARATOR,
        "clean_up_tokenization_spaces": False,
        "eos_token": END_OF_TURN,
        "extra_special_tokens": [token for token in SPECIAL if token not in (SEPARATOR, END_OF_TURN, PAD)],
        "pad_token": PAD,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer.json").write_text(made.to_str(pretty=True), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")


def _counted(rows: Iterator[tuple[str, str]], progress: Progress) -> Iterator[str]:
    for text, _ in rows:
        progress.update()
        yield text


def _given(path: str) -> list[Path]:
    """The tokenizer files of a given folder; model weights and the like that lie beside them stay there."""
    names = [
        *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"),
        *("added_tokens.json", "vocab.json", "merges.txt"),
    ]
    found = [Path(path) / name for name in names if (Path(path) / name).is_file()]
    if not any(file.name == "tokenizer.json" for file in found):
        raise ConfigError(f"tokenizer.path: no tokenizer.json in {path}; give a folder with a fast tokenizer")
    return found
