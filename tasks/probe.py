"""How fast this machine trains each phase: the pretrain stage itself on made-up documents for half a minute."""

import contextlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_curation.artifact import Artifact, Part
from data_curation.files import File, sha256_file
from data_curation.place import Place, Resources
from data_curation.shard_index import Index
from data_curation.shard_writer import write_folder
from data_curation.shards import Document
from data_curation.tokenizer_files import SPECIAL
from data_curation.tokenizer_files import write_folder as write_tokenizer
from training.pretrain import Phase, PretrainConfig, pretrain

SECONDS = 30.0
DOCUMENT_TOKENS = 1500  # of made-up documents on average, as on the web
STEP_TOKENS = {"cuda": 1 << 16, "cpu": 1 << 12}  # about one micro-batch: an optimizer step costs little beside it


def probe(config: PretrainConfig, vocabulary: int, resources: Resources, seconds: float = SECONDS) -> dict[str, float]:
    """Tokens a second of each phase, by the stage's name; takes about `seconds` and what compiling takes."""
    quiet = resources.model_copy(update={"log_seconds": 1e9, "checkpoint_seconds": 1e9, "trackers": []})
    device = "cpu" if resources.device == "cpu" or not _has_cuda() else "cuda"
    speeds: dict[str, float] = {}
    said = io.StringIO()  # its own progress and bars are not a plan's
    with (
        tempfile.TemporaryDirectory(prefix="tokenmill-probe-") as folder,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        home = Path(folder)
        tokenizer = _tokenizer(home / "tokenizer", vocabulary)
        for number, (name, phase) in enumerate(zip(config.names(), config.phases, strict=True)):
            row = phase.seq_len * resources.ranks
            step = max(1, min(config.tokens_per_step, STEP_TOKENS[device] * resources.ranks) // row) * row
            place = Place(str(home / f"{number}"), home / f"{number}-scratch", quiet, name)
            shards = _shards(home / f"{number}-shards", tokenizer, vocabulary, 2 * step)
            # The first, short run loads, compiles and shows how many steps fit into the time.
            first = _speed(config, phase, step, 2, shards, tokenizer, place)
            steps = max(2, min(400, int(seconds / len(config.phases) * first / step)))
            place = Place(str(home / f"{number}-again"), home / f"{number}-scratch", quiet, name)
            speeds[name] = _speed(config, phase, step, steps, shards, tokenizer, place)
    return speeds


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _speed(
    config: PretrainConfig, phase: Phase, step: int, steps: int, shards: Artifact, tokenizer: Artifact, place: Place
) -> float:
    place.scratch.mkdir(parents=True, exist_ok=True)
    alone = phase.model_copy(
        update={"tokens": step * steps, "warmup_steps": 0, "yarn_factor": None, "mix": type(phase.mix)()}
    )
    small = config.model_copy(update={"tokens_per_step": step, "phases": [alone], "max_epochs": None})
    counts = pretrain(small.run_of(0), shards, tokenizer, None, place)
    return float(counts.metrics["tokens_per_second"]["value"])


def _tokenizer(home: Path, vocabulary: int) -> Artifact:
    """A tokenizer with this many entries; nothing is ever encoded with it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models

    names = [*SPECIAL, *(f"t{number}" for number in range(len(SPECIAL), vocabulary))]
    made = Tokenizer(models.BPE({name: number for number, name in enumerate(names)}, []))
    made.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL])
    made.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    folder = home / "tokenizer"
    folder.mkdir(parents=True)
    write_tokenizer(folder, made.to_str())
    return _artifact("tokenizer", home)


def _shards(home: Path, tokenizer: Artifact, vocabulary: int, tokens: int) -> Artifact:
    sha256 = sha256_file(tokenizer.uri("tokenizer", "tokenizer.json"))
    write_folder(home / "shards", Index(vocabulary, 0, sha256, ("made up",), ("",)), _documents(vocabulary, tokens))
    return _artifact("shard", home)


def _documents(vocabulary: int, tokens: int) -> Iterator[Document]:
    draw = np.random.default_rng(0)
    while tokens > 0:
        size = 2 + int(draw.exponential(DOCUMENT_TOKENS))
        ids = draw.integers(len(SPECIAL), vocabulary, size, dtype=np.uint32)
        yield Document(f"{tokens}", "made up", "", size, ids)
        tokens -= size


def _artifact(name: str, home: Path) -> Artifact:
    """The only folder below `home` as an artifact's part."""
    (folder,) = home.iterdir()
    paths = sorted(folder.iterdir())
    files = [File(path.name, path.stat().st_size, sha256_file(str(path))) for path in paths]
    return Artifact(name, str(home), {folder.name: Part(tuple(files))}, key=home.name)
