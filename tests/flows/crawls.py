"""A small road over pages with planted ones, as a configuration file, and a search of every byte of a store."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml

from tests.data_curation.prose import text

PLANTED = "Quillmarsh"
"""A word of no other page."""
PARAGRAPH = (
    "The old heron kept ninety violet ledgers beneath the Quillmarsh observatory until the patient baker came on "
    "Thursday, and the quiet judge of Quillmarsh had not counted them before."
)


def url(number: int) -> str:
    """Address of a page."""
    return f"https://a.example/{number}"


def page(number: int) -> dict[str, str]:
    """Pages by their numbers: 7 has the planted paragraph, 8 is nearly the same, 9 has it and is dropped by `clean`."""
    planted = {7: f"\n\n{PARAGRAPH}", 8: f"\n\n{PARAGRAPH} So it was.", 9: f"\n\nLorem ipsum. {PARAGRAPH}"}
    base = 7 if number == 8 else number
    return {"url": url(number), "text": text(base, count=9) + planted.get(number, "")}


def preset(home: Path, pages: range, **sections: Any) -> Path:
    """The configuration of a road over these pages, in `home`, with other sections laid over it."""
    source = home / "pages"
    source.mkdir(exist_ok=True)
    for start in range(pages.start, pages.stop, 10):
        rows = [json.dumps(page(number)) for number in range(start, min(start + 10, pages.stop))]
        (source / f"{start:03}.jsonl").write_text("\n".join(rows))
    phase = {"tokens": 2048, "learning_rate": 1e-3}
    model = {"family": "llama", "hidden_size": 32, "layers": 2, "heads": 2, "kv_heads": 2, "intermediate_size": 64}
    config = {
        "dialogues": {"tasks": {"train": 30, "dev": 10, "test": 10}},
        "extract": {
            "sources": [{"name": "pages", "kind": "jsonl", "path": str(source)}],
            "bytes_per_task": 15_000,
        },
        "clean": {"languages": [{"code": "en"}]},
        "tokenizer": {"vocab_size": 400},
        "shard": {"heldout_fraction": 0.1, "tokens_per_shard": 20_000},
        "pretrain": {
            "model": model,
            "tokens_per_step": 512,
            "dtype": "float32",
            "phases": [phase | {"seq_len": 64, "tokens": 40_960}, phase | {"seq_len": 128}],
        },
        "run": {
            **{name: str(home / name) for name in ("store", "export", "home", "sources")},
            "resources": {"workers": 1, "threads": 1, "device": "cpu"},
        },
    }
    path = home / "small.yaml"
    path.write_text(yaml.safe_dump(config | sections))
    return path


def holding(folder: Path, word: str) -> list[str]:
    """Every file below a folder that holds a word, in any case: Parquet and shards are decoded first."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [
        path.relative_to(folder).as_posix() for path in paths if word.casefold() in _content(path, folder).casefold()
    ]


def _content(path: Path, store: Path) -> str:
    if path.suffix == ".parquet":
        columns = pq.read_table(path).to_pydict()
        return "\n".join(str(value) for values in columns.values() for value in values)
    if path.suffix == ".tokens" and (path.parent / "index.json").exists():
        from tokenizers import Tokenizer

        index = json.loads((path.parent / "index.json").read_text())
        tokens = np.fromfile(path, index["dtype"]).tolist()
        return Tokenizer.from_file(str(_tokenizer(store, index["tokenizer"]))).decode(tokens)
    return path.read_bytes().decode("utf-8", "replace")


def _tokenizer(store: Path, sha256: str) -> Path:
    from data_curation.files import sha256_file

    return next(path for path in store.rglob("tokenizer.json") if sha256_file(str(path)) == sha256)
