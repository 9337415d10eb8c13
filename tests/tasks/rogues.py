"""Stages that misbehave, for tests of the process that a stage runs in."""

import subprocess
import sys

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
