"""Does Muon beat AdamW at equal tokens: the demo's phases with both, each at its best learning rate.

python -m benchmarks.optimizers --store out/store [--json] [--save], after `tokenmill run demo --until shard`.

Learning rates of all phases are multiplied by the factors of GRID at seed 0; the best factor of each optimizer is then
trained with two more seeds. One thread each.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import statistics
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, finish, options, row
from data_curation.artifact import Artifact
from data_curation.place import Place, Resources, parts_of
from flows.config import load
from tasks.store import Store
from training.pretrain import PretrainConfig, pretrain

GRID = {"adamw": (0.25, 0.5, 1.0, 2.0), "muon": (0.5, 1.0, 2.0)}
SEEDS = (0, 1, 2)
HELDOUT_TOKENS = 60_000
QUIET = Resources(device="cpu", threads=1, log_seconds=1e9, checkpoint_seconds=1e9)


@dataclass(frozen=True)
class Side:
    """One training of all phases."""

    optimizer: str
    factor: float
    seed: int


Found = dict[Side, tuple[float, float]]
"""Held-out bits per byte after the last phase, and tokens a second over all."""


def main() -> int:
    """Measure every side; 1 if Muon's mean is not below AdamW's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--store", default="out/store", help="where the demo's shards and tokenizer are")
    parser.add_argument("--workers", type=int, default=1, help="trainings at a time; speeds need 1")
    parser.add_argument("--keep", type=Path, help="JSON lines of the sides that are done, to go on after a stop")
    options(parser)
    asked = parser.parse_args()
    found = _kept(asked.keep)
    _train_all([Side(name, factor, 0) for name, grid in GRID.items() for factor in grid], found, asked)
    best = {name: min(grid, key=lambda factor: found[Side(name, factor, 0)][0]) for name, grid in GRID.items()}
    chosen = {name: [Side(name, best[name], seed) for seed in SEEDS] for name in GRID}
    _train_all([side for sides in chosen.values() for side in sides], found, asked)
    values = {name: [found[side][0] for side in sides] for name, sides in chosen.items()}
    speeds = {name: statistics.mean(found[side][1] for side in sides) for name, sides in chosen.items()}
    result = {
        "rows": _rows(values, speeds),
        "agreement": {"best factor of the demo's learning rates": best, "bits per byte by seed": values},
        "measured": [_line(side, *some) for side, some in found.items()],
    }
    factors = "; ".join(f"{name} {', '.join(map(str, grid))}" for name, grid in GRID.items())
    note = (
        f"The demo's three phases and its model of 1M parameters, {len(SEEDS)} seeds, one thread each; bits per byte "
        f"of {HELDOUT_TOKENS:,} held-out tokens after the last phase. Ours is Muon, other AdamW. The demo's learning "
        f"rates times the best factor at seed 0 of: {factors}. Several trainings shared the machine with other work, "
        "so speeds are rough."
    )
    return finish("optimizers", "Muon against AdamW at equal tokens", note, result, asked)


def _train_all(sides: list[Side], found: Found, asked: argparse.Namespace) -> None:
    with ProcessPoolExecutor(asked.workers, multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(_train, side, asked.store): side for side in sides if side not in found}
        for future in as_completed(futures):
            side = futures[future]
            found[side] = future.result()
            if asked.keep:
                with asked.keep.open("a") as out:
                    out.write(json.dumps(_line(side, *found[side])) + "\n")


def _line(side: Side, bits: float, speed: float) -> dict[str, Any]:
    return asdict(side) | {"bits_per_byte": bits, "tokens_per_second": speed}


def _kept(path: Path | None) -> Found:
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path and path.exists() else []
    return {
        Side(line["optimizer"], line["factor"], line["seed"]): (line["bits_per_byte"], line["tokens_per_second"])
        for line in lines
    }


def _rows(values: dict[str, list[float]], speeds: dict[str, float]) -> list[Row]:
    ours, other = (statistics.mean(values[name]) for name in ("muon", "adamw"))
    rows = [row("held-out bits per byte", ours, other, "bits/byte", goal=round(other, 3), less=True)]
    rows.append(row("tokens per second, phases' mean", speeds["muon"], speeds["adamw"], "tokens/s"))
    for name, some in values.items():
        rows.append(row(f"{name}: spread of the seeds", statistics.stdev(some), None, "bits/byte"))
    return rows


def _changed(config: PretrainConfig, side: Side) -> PretrainConfig:
    data = config.model_dump()
    for phase in data["phases"]:
        phase["learning_rate"] *= side.factor
    return PretrainConfig.model_validate(data | {"optimizer": side.optimizer, "seed": side.seed})


def _newest(store: Store, word: str) -> Artifact:
    """The last artifact of a stage that this store has made."""
    manifest = max((store.manifest(*at) for at in store.current(word)), key=lambda one: one.made)
    return manifest.artifact(word, store.uri(word, manifest.key, str(manifest.attempt)))


def _train(side: Side, store: str) -> tuple[float, float]:
    """What `Found` holds of one side."""
    from training.heldout import measure
    from training.model import load as load_model

    shards, tokenizer = (_newest(Store(store), word) for word in ("shard", "tokenizer"))
    config = _changed(load("demo").pretrain, side)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        place, previous, seconds, tokens = Place(folder, Path(folder), QUIET), None, 0.0, 0
        for index, name in enumerate(config.names()):
            place = Place(f"{folder}/{name}", Path(folder, f"{name}-scratch"), QUIET, name)
            place.scratch.mkdir()
            counts = pretrain(config.run_of(index), shards, tokenizer, previous, place)
            previous = Artifact(name, place.home, parts_of(place.pieces()), key=name)
            tokens += counts.taken["tokens"]
            seconds += counts.taken["tokens"] / counts.metrics["tokens_per_second"]["value"]
        assert previous is not None
        model = previous.folder("model", Path(folder))
        heldout = shards.folder("heldout", Path(folder))
        text = measure(load_model(model).eval(), heldout, model, HELDOUT_TOKENS, None, place)
        return text.bits_per_byte()["value"], tokens / seconds


if __name__ == "__main__":
    sys.exit(main())
