"""Byte-level BPE with chat tokens, trained on a sample of the documents, or a given tokenizer."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.documents import read_rows
from data_curation.files import sha256_file
from data_curation.place import Place
from data_curation.progress import Progress
from data_curation.settings import ConfigError, InputError, Settings, sha256_of
from data_curation.tokenizer_files import SPECIAL, add_chat, check_contract, given, write_folder
from data_curation.tokenizer_quality import Row, measure

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|DIGITS|"
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MEASURED = 0.05  # share of the documents that are not trained on but measured, and at most
MEASURED_BYTES = 16 * 2**20
COUNTED_BYTES = 32 * 2**20  # of the training sample, encoded to see which entries are used


class TokenizerConfig(Settings):
    """How the tokenizer comes into being."""

    path: str = ""
    """Ready tokenizer to copy instead of training one: a folder or hub://OWNER/NAME[@REVISION]; its bytes are part of
    the key, its place is not."""
    chat: Literal["given", "chatml"] = "given"
    """What a ready tokenizer is used with: its own template and special tokens, which must be fit for training, or
    ours, added where it lacks them."""
    vocab_size: int = Field(default=32768, ge=256 + len(SPECIAL))
    """Entries in all: 256 bytes, special tokens, merges. Below 65,537 the shards take two bytes a token."""
    sample_bytes: int = Field(default=256 * 2**20, gt=0)
    """UTF-8 bytes of documents to train on, chosen by the hash of their ids; about 30 s for 100 MB."""
    digits: Literal[1, 2, 3] = 1
    """Digits of one token at most: 1 as in Qwen 3 and Gemma, 3 as in Llama 3 and GPT-4."""
    pattern: str = ""
    """Regular expression (Oniguruma) whose matches no merge may cross; empty: words with a leading space, digits,
    signs, line ends, other spaces, as in current open models."""
    reference: str = ""
    """Tokenizer to compare with, a folder or hub name as in `path`; empty: a BPE of as many entries with GPT-2's
    pattern, trained on 32 MB of the same sample at most. It changes the report, not the tokenizer."""
    seed: int = 0
    """Chooses which documents are in the sample."""

    def identity(self) -> dict[str, Any]:
        """As for every section, but a given folder counts by its files' bytes."""
        data = super().identity()
        for name in ("path", "reference"):
            if value := getattr(self, name):
                files = given(value, f"tokenizer.{name}")
                data[name] = sha256_of({file.name: sha256_file(str(file)) for file in files})
        return data

    def split(self) -> str:
        """The regular expression in use."""
        return self.pattern or PATTERN.replace(
            "DIGITS", r"\p{N}" if self.digits == 1 else rf"\p{{N}}{{1,{self.digits}}}"
        )


def tokenizer(config: TokenizerConfig, documents: Artifact, place: Place) -> Counts:
    """Publish part `tokenizer`, a plain AutoTokenizer folder, and measure it on documents it was not trained on."""
    sample = Sample.of(config, documents)
    done = place.done("tokenizer")
    if done is None:
        folder = place.scratch / "tokenizer"
        folder.mkdir(parents=True, exist_ok=True)
        if config.path:
            _copy(config, folder)
        else:
            texts = _counted(sample.rows(0, sample.train), place.progress("documents"))
            write_folder(folder, train(config, texts).to_str(pretty=True))
        check_contract(folder)
        with place.piece("tokenizer") as piece:
            piece.send("tokenizer", folder)
        done = piece.piece
    folder = place.folder(done, "tokenizer")
    reference = _reference(config, folder, sample, place.scratch / "reference")
    rows = sample.measured(), sample.rows(0, sample.counted)
    counts = measure(folder, reference, *rows, place)
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

    def measured(self) -> Iterator[Row]:
        """The documents to measure; of a handful none may be left for that, then those that were trained on."""
        found = False
        for row in self.rows(self.measure, 1):
            found = True
            yield row
        if not found:
            yield from self.rows(0, self.measure)

    def rows(self, low: float, high: float) -> Iterator[Row]:
        """(text, language, source) of the documents whose hash / 2^64 lies in [low, high)."""
        import xxhash

        for uri in self.uris:
            for row in read_rows(uri, ["id", "text", "language", "source"]):
                if row["text"] and low <= xxhash.xxh3_64_intdigest(row["id"], self.seed) / 2**64 < high:
                    yield row["text"], row["language"] or "unknown", row["source"] or "unknown"


def train(config: TokenizerConfig, texts: Iterator[str]) -> Any:
    """A trained `tokenizers.Tokenizer`. Training sees only word counts, so files, order and threads do not matter."""
    from tokenizers import Regex, pre_tokenizers

    try:
        split = pre_tokenizers.Split(Regex(config.split()), "isolated")
    except Exception as error:  # the binding raises bare Exception for a wrong expression
        raise ConfigError(f"tokenizer.pattern: no valid regular expression ({error}): {config.split()}") from error
    words = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    return _bpe(words, config.vocab_size, texts)


def _bpe(words: Any, entries: int, texts: Iterator[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = words
    made.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=entries,
        special_tokens=SPECIAL,  # type: ignore[arg-type]
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    return made


def _copy(config: TokenizerConfig, folder: Path) -> None:
    for file in given(config.path, "tokenizer.path"):
        (folder / file.name).write_bytes(file.read_bytes())
    if config.chat == "chatml":
        add_chat(folder)


def _reference(config: TokenizerConfig, made: Path, sample: Sample, folder: Path) -> Path:
    """The folder of the tokenizer to compare with: the one asked for, else what GPT-2's recipe makes of the sample."""
    from tokenizers import Tokenizer, pre_tokenizers

    folder.mkdir(parents=True, exist_ok=True)
    if config.reference:
        for file in given(config.reference, "tokenizer.reference"):
            (folder / file.name).write_bytes(file.read_bytes())
        return folder
    entries = Tokenizer.from_file(str(made / "tokenizer.json")).get_vocab_size()
    texts = (text for text, _, _ in sample.rows(0, sample.counted))
    words = pre_tokenizers.ByteLevel(False, use_regex=True)
    write_folder(folder, _bpe(words, max(entries, 256 + len(SPECIAL)), texts).to_str())
    return folder


def _counted(rows: Iterator[Row], progress: Progress) -> Iterator[str]:
    for text, _, _ in rows:
        progress.update()
        yield text
