"""Experiment trackers behind one thin interface: in a thread of their own, so that none holds up a training."""

import importlib
import json
import logging
import queue
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = "tokenmill"
WAITING = 10_000
"""Values that may wait for slow trackers; more are dropped, and counted."""
CLOSE_SECONDS = 60.0
"""How long the end of a training waits for them."""

log = logging.getLogger("tokenmill")


@dataclass(frozen=True)
class Tracker:
    """One open tracker."""

    add: Callable[[dict[str, float], int], Any]
    """Values and their step."""
    close: Callable[[], Any]


@dataclass(frozen=True)
class Subject:
    """What is tracked."""

    name: str
    """Of the run in the tracker, the same when a training is taken up again."""
    config: dict[str, Any]
    folder: Path
    """For trackers that write files."""
    earlier: list[tuple[int, dict[str, float]]]
    """Steps that are done already, for trackers that begin anew."""


def tensorboard(subject: Subject) -> Tracker:
    """Event files in the stage's records, earlier steps included."""
    writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter(str(subject.folder / "tensorboard"))
    writer.add_text("config", f"```json\n{json.dumps(subject.config, indent=1)}\n```")

    def add(values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    for step, values in subject.earlier:
        add(values, step)
    return Tracker(add, writer.close)


def wandb(subject: Subject) -> Tracker:
    """A run that goes on where it was; account, host and mode as wandb's environment says."""
    run = importlib.import_module("wandb").init(
        project=PROJECT, name=subject.name, id=subject.name, resume="allow", config=subject.config
    )
    return Tracker(lambda values, step: run.log(values, step=step), run.finish)


def trackio(subject: Subject) -> Tracker:
    """A local run that goes on where it was."""
    module = importlib.import_module("trackio")
    module.init(project=PROJECT, name=subject.name, resume="allow", config=subject.config)
    return Tracker(lambda values, step: module.log(values, step=step), module.finish)


def mlflow(subject: Subject) -> Tracker:
    """A run of the experiment `tokenmill`; MLFLOW_TRACKING_URI says where."""
    module = importlib.import_module("mlflow")
    module.set_experiment(PROJECT)
    module.start_run(run_name=subject.name)
    module.log_dict(subject.config, "config.json")
    return Tracker(lambda values, step: module.log_metrics(values, step=step), module.end_run)


OPEN: dict[str, Callable[[Subject], Tracker]] = {
    "tensorboard": tensorboard,
    "wandb": wandb,
    "trackio": trackio,
    "mlflow": mlflow,
}


class Trackers:
    """All trackers of one training. What goes wrong with one is a warning, and the others go on."""

    def __init__(self, names: list[str], subject: Subject) -> None:
        self.names, self.subject = names, subject
        self.warnings: list[str] = []
        self._queue: queue.Queue[tuple[dict[str, float], int] | None] = queue.Queue(WAITING)
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        if names:
            self._thread.start()

    def add(self, values: dict[str, float], step: int) -> None:
        """Hand over some values; returns at once."""
        if self._thread.is_alive():
            try:
                self._queue.put_nowait((values, step))
            except queue.Full:
                self._dropped += 1

    def close(self) -> list[str]:
        """Wait a while for those that are still writing; returns the warnings."""
        if self._thread.is_alive():
            with suppress(queue.Full):
                self._queue.put(None, timeout=CLOSE_SECONDS)
            self._thread.join(CLOSE_SECONDS)
            if self._thread.is_alive():
                self._warn(f"trackers {', '.join(self.names)}: still busy after {CLOSE_SECONDS:.0f} s, left behind")
        if self._dropped:
            self._warn(f"trackers {', '.join(self.names)}: too slow, {self._dropped} steps were not sent")
            self._dropped = 0
        return self.warnings

    def _run(self) -> None:
        trackers: dict[str, Tracker] = {}
        for name in self.names:
            with self._watched(name):
                trackers[name] = OPEN[name](self.subject)
        broken: set[str] = set()
        while len(broken) < len(trackers) and (item := self._queue.get()) is not None:
            for name in trackers.keys() - broken:
                broken.add(name)
                with self._watched(name):
                    trackers[name].add(*item)
                    broken.remove(name)
        for name in trackers.keys() - broken:
            with self._watched(name):
                trackers[name].close()

    @contextmanager
    def _watched(self, name: str) -> Generator[None]:
        """Whatever a tracker raises becomes a warning."""
        try:
            yield
        except Exception as error:
            advice = f"pip install {name}" if isinstance(error, ModuleNotFoundError) else "it is left out from here on"
            self._warn(f"tracker {name}: {type(error).__name__}: {error}: {advice}")

    def _warn(self, text: str) -> None:
        self.warnings.append(" ".join(text.split()))
        log.warning("%s", self.warnings[-1])
