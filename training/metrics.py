"""What a training tells of its steps while it runs: a line of progress, records/steps.jsonl, trackers."""

import json
import time
from collections import deque
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from data_curation.files import is_local, join, write_bytes
from data_curation.place import Place
from training.pretrain import PhaseRun
from training.speed import mfu
from training.state import State, StepRecord
from training.trackers import Subject, Trackers

RECENT = 32
"""Steps over which the speed in the line of progress is taken."""


class Metrics:
    """Tells of one phase. With a store on disk steps.jsonl can be followed; on s3 it comes at the end.

    `devices` are the names of all ranks' devices.
    """

    def __init__(self, run: PhaseRun, place: Place, vocabulary: int, devices: list[str]) -> None:
        self.run, self.place, self.devices = run, place, devices
        self.flops = run.model.flops_per_token(run.phase.seq_len, vocabulary)
        self.folder = Path(place.home, "records") if is_local(place.home) else place.scratch / "records"
        self.file = self.folder / "steps.jsonl"
        self.progress = place.progress("tokens", run.steps * run.tokens_per_step)
        self.recent: deque[tuple[float, int]] = deque(maxlen=RECENT)
        self.trackers: Trackers | None = None
        self.warnings: list[str] = []

    def __enter__(self) -> "Metrics":
        """Nothing is open yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the trackers; what was written to local files goes to the store."""
        if self.trackers is None:
            return  # this rank has told nothing
        self.warnings += self.trackers.close()
        if not is_local(self.place.home) and kind is None:
            for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
                name = path.relative_to(self.folder).as_posix()
                write_bytes(join(self.place.home, "records", name), path.read_bytes())

    def begin(self, state: State) -> None:
        """The steps that are done: at the start, from a checkpoint, or after a return to an earlier one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [self._line(record) for record in state.history]
        self.file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        self.recent.clear()
        self.recent.append((time.monotonic(), state.step))
        done = [((record.step + 1) * self.run.tokens_per_step, record.loss) for record in state.history]
        self.progress.begin(state.step * self.run.tokens_per_step, {"loss": done})
        if self.trackers is None:
            # The store's folder of all attempts at this phase: a name that a second attempt has again.
            name = f"{self.place.name}-{self.place.home.rstrip('/').split('/')[-2:][0][:12]}"
            earlier = [(self._step(record), _values(line)) for record, line in zip(state.history, lines, strict=True)]
            subject = Subject(name, self.run.model_dump(mode="json"), self.folder, earlier)
            self.trackers = Trackers(list(self.place.resources.trackers), subject)

    def step(self, state: State, skipped: int) -> None:
        """The last step, taken or not; `skipped` are those of the phase that were not."""
        self.recent.append((time.monotonic(), state.step))
        (then, before), (now, after) = self.recent[0], self.recent[-1]
        speed = (after - before) * self.run.tokens_per_step / max(1e-9, now - then)
        used = mfu(speed, self.flops, self.devices)
        record = state.history[-1] if state.history else None
        taken = record is not None and record.step == state.step - 1
        if record is not None and taken:
            line = self._line(record)
            with self.file.open("a") as out:
                out.write(json.dumps(line) + "\n")
            assert self.trackers is not None
            seen = {"tokens_per_second": speed} | ({} if used is None else {"mfu": used})
            self.trackers.add(_values(line) | seen, self._step(record))
        self.progress.done = (state.step - 1) * self.run.tokens_per_step
        parts = [f"loss {record.loss:.3f}"] if record else []
        parts += [f"{speed:,.0f} tokens/s"] + ([] if used is None else [f"MFU {used:.1%}"])
        parts += [f"{skipped} steps skipped"] if skipped else []
        values = {"loss": record.loss} if record is not None and taken else {}
        self.progress.update(self.run.tokens_per_step, ", ".join(parts), values)

    def _line(self, record: StepRecord) -> dict[str, Any]:
        """The record with the tokens of all phases so far; `step` is that of the phase, from 0."""
        return asdict(record) | {"tokens": (self._step(record) + 1) * self.run.tokens_per_step}

    def _step(self, record: StepRecord) -> int:
        return self.run.earlier_steps + record.step


def _values(line: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in line.items() if name != "step"}
