"""Small stages with known outputs, for tests of the spine."""

import os
import signal
import time
from pathlib import Path

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.place import Place
from data_curation.settings import InputError, Settings, TransientError


class SeedConfig(Settings):
    """What the first toy stage writes."""

    numbers: list[int] = [3, 1, 2]
    """Numbers to write."""
    comment: str = ""
    """Identity that does not change the output."""


class SortConfig(Settings):
    """What the second toy stage does with them."""

    descending: bool = False
    """Order."""
    fail: str = ""
    """`input`, `transient`, `kill`, `hang`, `secret`, `secret print`: until the file `mended` lies beside the store."""
    mended: str = ""
    """Path whose existence ends the failing."""


def seed(config: SeedConfig, place: Place) -> Counts:
    """Write the numbers, and a part that depends on the comment."""
    with place.piece("all") as piece:
        piece.send_json("numbers", "numbers.json", config.numbers)
        piece.send_json("decisions", "comment.json", config.comment)
    return Counts(made={"numbers": len(config.numbers)})


def sort(config: SortConfig, numbers: Artifact, place: Place) -> Counts:
    """Sort the numbers in two pieces; on the way it can fail in several manners."""
    found: list[int] = numbers.read_json("numbers", "numbers.json")
    if place.done("first") is None:
        with place.piece("first") as piece:
            piece.send_json("sorted", "first.json", sorted(found, reverse=config.descending))
    if config.fail and not Path(config.mended).exists():
        _fail(config)
    adopted = place.done("first") is not None
    with place.piece("second") as piece:
        piece.send_json("sorted", "second.json", len(found))
    place.plot("sizes", "Sizes", "index", "number", {"numbers": list(enumerate(map(float, found)))})
    return Counts(taken={"numbers": len(found)}, made={"numbers": len(found)}, warnings=["adopted"] * adopted)


class PhaseConfig(Settings):
    """What a toy phase adds."""

    steps: int
    """Steps."""


def pretrain(config: PhaseConfig, previous: Artifact | None, place: Place) -> Counts:
    """Go on from the steps of the last phase; the model says them too, in other words."""
    before: int = previous.read_json("state", "steps.json") if previous else 0
    with place.piece("all") as piece:
        piece.send_json("model", "model.json", f"trained for {before + config.steps} steps")
        piece.send_json("state", "steps.json", before + config.steps)
    return Counts(made={"steps": config.steps})


def _fail(config: SortConfig) -> None:
    if config.fail == "input":
        raise InputError("numbers.json: line 1 is damaged: restore the file")
    if config.fail == "secret":
        raise InputError(f"no access with {os.environ['PLANTED_TOKEN']} to {os.environ['PLANTED_URL']}")
    if config.fail == "secret print":
        print(os.environ["PLANTED_TOKEN"], os.environ["PLANTED_URL"], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if config.fail == "transient":
        Path(config.mended).touch()
        raise TransientError("the network was away")
    if config.fail == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    print("@progress " + '{"unit": "numbers", "done": 1, "total": 2, "text": "hanging"}', flush=True)
    while not Path(config.mended).exists():
        time.sleep(0.05)
