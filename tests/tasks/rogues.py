"""Stages that misbehave, for tests of the process that a stage runs in."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from data_curation.counts import Counts
from data_curation.place import Place
from data_curation.settings import Settings


class RogueConfig(Settings):
    """Nothing to set."""


def babbler(config: RogueConfig, place: Place) -> Counts:
    """Print lines that only look like progress, more of them than a pipe holds."""
    for number in range(20_000):
        print(f'@progress {{"unit": "lines", "do@progress {number}')
    return Counts(made={"lines": 20_000})


def leaver(config: RogueConfig, place: Place) -> Counts:
    """Leave a process in a session of its own that holds this one's output."""
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    return Counts()


def scientist(config: RogueConfig, place: Place) -> Counts:
    """Count in a type that JSON does not have."""
    return Counts(made={"lines": np.int64(3)})  # type: ignore[dict-item]


def diverged(config: RogueConfig, place: Place) -> Counts:
    """Measure what is no number."""
    return Counts(metrics={"loss": {"value": float("nan"), "n": 3, "standard_error": None}})


def teller(config: RogueConfig, place: Place) -> Counts:
    """Print what nobody should read."""
    print("GET s3://joe:hunter2@host/a?token=TOPSECRET&x=1")
    return Counts()


def saver(config: RogueConfig, place: Place) -> Counts:
    """Work until SIGTERM comes, then save for a while."""
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    print('@progress {"unit": "lines"}')
    asked.wait(300)
    threading.Event().wait(0.2)
    Path(place.home, "saved").touch()
    return Counts()


def mule(config: RogueConfig, place: Place) -> Counts:
    """Work on when SIGTERM comes."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(place.home, "pid").write_text(str(os.getpid()))
    print('@progress {"unit": "lines"}')
    threading.Event().wait(300)
    return Counts()
