"""Do averaged weights beat the last ones: the demo's instruct, with and without a falling learning rate.

python -m benchmarks.averaging --store out/store [--json] [--save], after `tokenmill run demo --until instruct`.
"""

import argparse
import contextlib
import io
import multiprocessing
import statistics
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, finish, options, row
from benchmarks.optimizers import QUIET
from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.place import Place
from flows.config import load
from tasks.store import Store

SEEDS = (1, 2, 3)
SCHEDULES = {"falling": 0.3, "constant": 0.02}
"""Share of the steps in which the learning rate falls to 0: the demo's, and next to none."""
SHARES = (0.1, 0.2, 0.4)
"""Of the steps, at the end, over which weights are averaged."""
SNAPSHOTS = 20
"""Of each average, at least."""
Found = dict[str, tuple[float, float]]
"""Held-out task accuracy and conversation loss, of the last weights and of each average."""
TITLE = "averaged weights against the last ones"
NOTE = f"""The demo's instruct from its base model, {len(SEEDS)} seeds, one thread each. Ours is the mean of the weights
at {SNAPSHOTS} steps or more in the last share of the training, other the weights of its last step; accuracy on 1,000
held-out tasks, and nats per token of held-out conversations. The rate falls to 0 in the last 30% of the steps (the
demo's setting) or stays until the last 2%."""


def main() -> int:
    """Train with every seed and schedule; there is no goal to miss."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--store", default="out/store", help="where the demo's base model and dialogues are")
    parser.add_argument("--workers", type=int, default=1, help="trainings at a time")
    options(parser)
    asked = parser.parse_args()
    sides = [(schedule, seed) for schedule in SCHEDULES for seed in SEEDS]
    with ProcessPoolExecutor(asked.workers, multiprocessing.get_context("spawn")) as pool:
        found = dict(zip(sides, pool.map(_train, *zip(*sides, strict=True), [asked.store] * len(sides)), strict=True))
    seeds = {schedule: [found[schedule, seed] for seed in SEEDS] for schedule in SCHEDULES}
    rows = [line for schedule, some in seeds.items() for line in _rows(schedule, some)]
    each = {f"{schedule}, seed {seed}": some for (schedule, seed), some in found.items()}
    return finish("averaging", TITLE, NOTE, {"rows": rows, "agreement": {}, "measured": each}, asked)


def _rows(schedule: str, seeds: list[Found]) -> list[Row]:
    rows: list[Row] = []
    for name in [name for name in seeds[0] if name != "last"]:
        for at, (measure, unit) in enumerate((("task accuracy", ""), ("conversation loss", "nats/token"))):
            ours, other = (statistics.mean(found[side][at] for found in seeds) for side in (name, "last"))
            rows.append(row(f"{schedule} rate, {name}: {measure}", ours, other, unit, less=bool(at)))
    return rows


def _base(store: Store) -> tuple[Artifact, Artifact]:
    """The base model and the dialogues of the last `instruct` that this store has made."""
    manifest = max((store.manifest(*at) for at in store.current("instruct")), key=lambda one: one.made)
    return tuple(_artifact(store, manifest.sources[name][0]) for name in ("model", "dialogues"))  # type: ignore[return-value]


def _artifact(store: Store, uri: str) -> Artifact:
    word, key, attempt = uri.rstrip("/").split("/")[-3:]
    return store.manifest(word, key, int(attempt)).artifact(word, store.uri(word, key, attempt))


def _train(schedule: str, seed: int, where: str) -> Found:
    """What `Found` holds of one training."""
    import torch

    from training import instruct, instruct_measures, measures, trainers

    sums: dict[float, list[Any]] = {share: [0, {}] for share in SHARES}

    class Averaging(trainers.CheckpointPieces):
        """Adds up the weights of some steps."""

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """After an optimizer step."""
            for share, summed in sums.items():
                every = max(1, int(state.max_steps * share / SNAPSHOTS))
                if state.global_step > state.max_steps * (1 - share) and state.global_step % every == 0:
                    summed[0] += 1
                    for name, weight in kwargs["model"].state_dict().items():
                        summed[1][name] = summed[1].get(name, 0.0) + weight.double()
            super().on_step_end(args, state, control, **kwargs)

    trainers.CheckpointPieces = Averaging
    base, dialogues = _base(Store(where))
    config = load("demo").instruct.model_copy(update={"seed": seed, "decay": SCHEDULES[schedule]})
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        place = Place(f"{folder}/home", Path(folder, "scratch"), QUIET, "instruct")
        place.scratch.mkdir()
        instruct.instruct(config, base, dialogues, place)
        last, model = place.done("after"), place.done("model")
        assert last is not None and model is not None
        net, tokenizer = measures.load_policy(place.folder(model, "model"), place)
        held = instruct_measures.held_out(config, net, tokenizer, dialogues, Counts())
        found = {"last": _measured(last.note)}
        for share, (number, summed) in sums.items():
            with torch.no_grad():
                net.load_state_dict({name: (total / number).float() for name, total in summed.items()})
            note = instruct_measures.measured(config, place, f"average-{share}", net, tokenizer, held).note
            found[f"average of the last {share:.0%}"] = _measured(note)
    return found


def _measured(note: dict[str, Any]) -> tuple[float, float]:
    nats, tokens = zip(*note["losses"], strict=True)
    return statistics.mean(note["solved"]), sum(nats) / sum(tokens)


if __name__ == "__main__":
    sys.exit(main())
