"""Two tiny phases, shards of counting documents, and what the tests of pretraining ask of a place."""

import json
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from data_curation.artifact import Artifact
from data_curation.files import sha256_file
from data_curation.place import Place, parts_of
from data_curation.shard_index import Index
from data_curation.shard_writer import write_folder
from data_curation.shards import Document
from tests.training.conftest import artifact
from training.architecture import ModelConfig
from training.pretrain import Phase, PretrainConfig

CURVES = {
    "llama": [5.646670, 5.453201, 5.243883, 5.094805, 4.830127, 4.707401],
    "qwen3": [5.644617, 5.446971, 5.239570, 5.094962, 4.844331, 4.710564],
}
"""Losses of the six steps of `config().run_of(0)` by transformers' own forward pass."""

TINY = ModelConfig(family="llama", hidden_size=32, layers=2, heads=2, kv_heads=1, intermediate_size=64)


def config(**given: Any) -> PretrainConfig:
    """Two phases of six and three steps."""
    phases = [
        Phase(seq_len=32, tokens=6 * 256, learning_rate=1e-2, warmup_steps=2),
        Phase(seq_len=64, tokens=3 * 256, learning_rate=5e-3, rope_theta=50_000.0, shape="linear"),
    ]
    return PretrainConfig(**{"model": TINY, "tokens_per_step": 256, "dtype": "float32", "phases": phases} | given)


def documents(number: int, vocabulary: int) -> Iterator[Document]:
    """Documents of 5 to 150 tokens that count upwards, each closed by token 0."""
    random = np.random.default_rng(0)
    for index in range(number):
        length = int(random.integers(5, 150))
        tokens = 20 + (np.arange(length) + random.integers(100)) % (vocabulary - 20)
        yield Document(f"{index:032x}", "made", "en", length, np.append(tokens, 0).astype(np.uint16))


def counting_shards(tokenizer: Path, home: Path) -> Artifact:
    """Shards of 60 counting documents, made with the tiny tokenizer."""
    index = Index(300, 0, sha256_file(str(tokenizer / "tokenizer.json")), ("made",), ("en",))
    write_folder(home / "shards", index, documents(60, 300))
    return artifact("shard", home)


def published(place: Place) -> Artifact:
    """What the stage published, as the next stage sees it."""
    return Artifact(place.name, place.home, parts_of(place.pieces()), key=place.name)


def digests(output: Artifact) -> dict[str, str]:
    """Digest of every part."""
    return {name: part.digest for name, part in output.parts.items()}


def taken(place: Place) -> list[dict[str, Any]]:
    """The steps that were taken, by a finished training's records."""
    return [json.loads(line) for line in Path(place.home, "records", "steps.jsonl").read_text().splitlines()]


def losses(place: Place) -> list[float]:
    """Loss of every step of a place's training."""
    return [step["loss"] for step in taken(place)]


@contextmanager
def when_saved(place: Place, step: int, action: Callable[[], Any]) -> Generator[None]:
    """Do something once a checkpoint of this step or a later one is complete."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            names = [path.stem for path in Path(place.home, "work", "pieces").glob("checkpoint-*.json")]
            if any(int(name[-6:]) >= step for name in names):
                action()
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
