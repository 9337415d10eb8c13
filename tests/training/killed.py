"""Trains a phase in a process that kills itself: at a step, or in the middle of what it writes.

python -m tests.training.killed SPEC.json
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_curation.files import Writer
from data_curation.place import Place, Resources
from tests.training.conftest import artifact
from training import step
from training.pretrain import PhaseRun, pretrain


def main(spec: Path) -> None:
    """Train as the spec says until the call `at` of `what` (`step` or `write`)."""
    data = json.loads(spec.read_text())
    owner, name = {"step": (step.Trainer, "step"), "write": (Writer, "write")}[data["what"]]
    setattr(owner, name, _deadly(getattr(owner, name), data["at"]))
    place = Place(data["home"], Path(data["scratch"]), Resources(**data["resources"]), "killed")
    inputs = [artifact(name, Path(data[name])) for name in ("shards", "tokenizer")]
    pretrain(PhaseRun(**data["run"]), *inputs, None, place)


def _deadly(call: Callable[..., Any], at: int) -> Callable[..., Any]:
    calls = iter(range(at))

    def counted(*given: Any) -> Any:
        if next(calls, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*given)

    return counted


if __name__ == "__main__":
    main(Path(sys.argv[1]))
