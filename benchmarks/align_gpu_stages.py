"""Our side of benchmarks/align_gpu.py: the stages' own functions, their inputs, the clock of both sides."""

import json
import time
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from transformers import TrainerCallback

from benchmarks.align_gpu_scales import Scale
from benchmarks.pretrain_engines import synchronize
from data_curation import exercises
from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.dialogue_rows import DIALOGUES, PREFERENCES, Dialogue
from data_curation.documents import read_rows, write_table
from data_curation.place import Place, Resources, parts_of
from tasks.store import Store

SPLITS: tuple[exercises.Split, ...] = ("train", "dev", "test")


@dataclass
class Clock(TrainerCallback):
    """Takes the times of a trainer's steps, the same on both sides; may end the training after a step."""

    warm: int
    last: int
    ends: bool = False
    """Whether the training ends with step `last`."""
    built: float = 0.0
    begin: float = 0.0
    times: list[float] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The trainer is built, but for what TRL does afterwards, such as a precomputed reference."""
        self.built = _now()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Rows of a step and their tokens, from what the trainer was given."""
        rows = kwargs["train_dataloader"].dataset
        lengths = [0] * len(rows)
        for name, times in (("input_ids", 1), ("prompt_ids", 2), ("chosen_ids", 1), ("rejected_ids", 1)):
            if name in rows.column_names:
                lengths = [sum(pair) for pair in zip(lengths, (times * len(ids) for ids in rows[name]), strict=True)]
        self.found = {
            "rows_a_pass": args.per_device_train_batch_size,
            "rows_a_step": args.per_device_train_batch_size * args.gradient_accumulation_steps,
            "tokens_a_row": sum(lengths) / len(rows), "rows": len(rows), "bf16": args.bf16,
        }  # fmt: skip
        self.begin = _now()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One more time."""
        self.times.append(_now())
        if self.ends and state.global_step >= self.last:
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """What the counted steps came to."""
        last = min(self.last, len(self.times))
        warm = min(self.warm, last - 1)
        steps, seconds = last - warm, self.times[last - 1] - [self.begin, *self.times][warm]
        log = [line for line in state.log_history if "loss" in line]
        kept = ("loss", "kl", "reward", "completions/mean_length", "logps/chosen", "rewards/margins", "entropy")
        self.found |= {
            "steps": steps, "seconds": round(seconds, 3), "step_ms": round(1e3 * seconds / steps, 2),
            "rows_per_second": steps * self.found["rows_a_step"] / seconds,
            "tokens_per_second": steps * self.found["rows_a_step"] * self.found["tokens_a_row"] / seconds,
            "before_seconds": round(self.begin - self.built, 3),
            "first_step_seconds": round(self.times[0] - self.begin, 3),
            "log": [{"step": line["step"]} | {key: round(line[key], 4) for key in kept if key in line} for line in log],
        }  # fmt: skip


def _now() -> float:
    synchronize()
    return time.monotonic()


def run(name: str, scale: Scale, store: Store, folder: Path, device: Any) -> dict[str, Any]:
    """One of our stages, from what the stages before it left in the folder; what was measured.

    What its trainer was given is left in NAME.json, for the other side.
    """
    import transformers.trainer

    clock = Clock(scale.warm, scale.last)
    cast(list[Any], transformers.trainer.DEFAULT_CALLBACKS).append(clock)  # the stages build their trainers themselves
    begin = time.monotonic()
    place = place_of(name, scale, folder, device)
    counts = _stage(name, scale, store, folder, place)
    (folder / f"{name}.json").write_text(json.dumps(clock.found))
    found = {"stage": name, "seconds": round(time.monotonic() - begin, 1), "trainer": clock.found}
    names = ("metrics", "taken", "made", "gates", "warnings", "funnel")
    return found | {name: getattr(counts, name) for name in names}


def _stage(name: str, scale: Scale, store: Store, folder: Path, place: Place) -> Counts:
    from training.instruct import instruct
    from training.pairs import pairs
    from training.prefer import prefer
    from training.pretrain import pretrain
    from training.reinforce import reinforce

    if name == "base":
        phase = scale.pretrain.run_of(0)
        return pretrain(phase, made_by(store, "shard"), made_by(store, "tokenizer"), None, place)
    talks = dialogues(scale, made_by(store, "dialogues"), folder)
    if name == "instruct":
        return instruct(scale.instruct, published("base", folder), talks, place)
    tuned = published("instruct", folder)
    if name == "pairs":
        return pairs(scale.pairs, tuned, talks, place)
    if name == "prefer":
        return prefer(scale.prefer, tuned, published("pairs", folder), unfit(folder), place)
    chosen = {"sampler": "vllm", "steps": scale.last} if name == "vllm" else {}
    return reinforce(scale.reinforce.model_copy(update=chosen), tuned, talks, unfit(folder), place)


def place_of(name: str, scale: Scale, folder: Path, device: Any) -> Place:
    """Where a stage of this benchmark works."""
    scratch = folder / "scratch" / name
    scratch.mkdir(parents=True, exist_ok=True)
    tokens = {"base": None, "instruct": scale.chat}.get(name, scale.short)
    seconds = 15 if name == "base" else 1e9  # what goes wrong in the base costs no more than that
    given = Resources(device=device, threads=1, micro_batch_tokens=tokens, checkpoint_seconds=seconds)
    return Place(str(folder / name), scratch, given, name)


def published(name: str, folder: Path) -> Artifact:
    """What a stage of this benchmark published."""
    place = Place(str(folder / name), folder)
    return Artifact(name, place.home, parts_of(place.pieces()), key=name)


def made_by(store: Store, word: str) -> Artifact:
    """The newest output of a stage in a store that `tokenmill run` filled."""
    found = store.current(word)
    manifests = [(store.manifest(*one), store.home(*one)) for one in found]
    manifest, home = max(manifests, key=lambda one: one[0].made)
    return manifest.artifact(word, home)


def dialogues(scale: Scale, given: Artifact, folder: Path) -> Artifact:
    """The store's conversations among freshly generated tasks of all families, in an order by their hashes."""
    place = Place(str(folder / "dialogues"), folder)
    for split in SPLITS:
        if place.done(split) is None:
            chats = [row for uri in given.uris(split, ".parquet") for row in read_rows(uri) if row["kind"] == "chat"]
            tasks = [_row(one) for one in exercises.generate(split, scale.tasks[split], 0)]
            rows = sorted(chats + tasks, key=lambda row: sha256(row["id"].encode()).digest())
            with place.piece(split) as piece:
                write_table(piece, split, "00000.parquet", rows, DIALOGUES)
                write_table(piece, f"{split}-preferences", "00000.parquet", [], PREFERENCES)
    return published("dialogues", folder)


def _row(one: exercises.Exercise) -> dict[str, Any]:
    messages = [{"role": "user", "content": one.prompt}, {"role": "assistant", "content": one.answer}]
    return Dialogue("exercises", messages, one.task).row()


def unfit(folder: Path) -> Artifact:
    """A verdict that no reward model may be used."""
    place = Place(str(folder / "reward"), folder)
    if place.done("verdict") is None:
        with place.piece("verdict") as piece:
            piece.send_json("verdict", "verdict.json", {"fit": False})
    return published("reward", folder)
