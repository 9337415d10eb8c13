"""The child process of one stage: runs the stage's pure function, draws its plots, says how it went.

    python -m tasks.child SPEC.json

It ends with its whole process group when its parent is gone: after `kill -9` of a run nothing goes on in the dark.
"""

import importlib
import json
import logging
import math
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from data_curation.artifact import Artifact, Part
from data_curation.files import File
from data_curation.place import Place, Resources
from data_curation.settings import ConfigError, InputError, StageError, is_transient
from tasks.plots import draw_plots

PERMANENT = {"ConfigError": ConfigError, "InputError": InputError, "StageError": StageError}


def main(spec_path: str) -> int:
    """Run what the spec names; writes `result.json` beside it. Exit code 0 done, 1 failed with words."""
    spec = json.loads(Path(spec_path).read_text())
    _end_with_parent(spec["parent"])
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    result = Path(spec_path).with_name("result.json")
    try:
        answer = json.dumps({"counts": _finite(_run(spec)), "device": _device()}, allow_nan=False)
    except BaseException as error:
        traceback.print_exc()
        result.write_text(json.dumps({"error": _kind(error), "message": str(error) or repr(error)}))
        return 1
    result.write_text(answer)
    return 0


def _run(spec: dict[str, Any]) -> dict[str, Any]:
    module_name, function_name = spec["function"].split(":")
    module = importlib.import_module(module_name)
    config = getattr(importlib.import_module(spec["config_module"]), spec["config_class"]).model_validate(
        spec["config"]
    )
    place = Place(spec["home"], Path(spec["scratch"]), Resources.model_validate(spec["resources"]), spec["name"])
    place.scratch.mkdir(parents=True, exist_ok=True)
    inputs = {name: _input(value) for name, value in spec["inputs"].items()}
    counts = getattr(module, function_name)(config, **inputs, place=place)
    draw_plots(place)
    return vars(counts)


def _device() -> str:
    """What really computed: the GPU's name, or `cpu`. Only a stage that used torch has it loaded."""
    torch = sys.modules.get("torch")
    return str(torch.cuda.get_device_name()) if torch and torch.cuda.is_initialized() else "cpu"


def _finite(counts: dict[str, Any]) -> dict[str, Any]:
    """The counts with null for metrics that are no number, which JSON cannot say, and a warning for each.

    A gate's value becomes the word for it: null would say that nothing was measured, and such a gate ends no run.
    """
    for kind in ("metrics", "gates"):
        named = counts[kind].items() if kind == "metrics" else ((gate["gate"], gate) for gate in counts[kind])
        for name, one in named:
            for field, value in one.items():
                if isinstance(value, float) and not math.isfinite(value):
                    one[field] = str(value) if kind == "gates" and field == "value" else None
                    counts["warnings"].append(f"{name}: its {field.replace('_', ' ')} is {value}")
    return counts


def _kind(error: BaseException) -> str:
    for kind, cls in PERMANENT.items():
        if isinstance(error, cls):
            return kind
    return "TransientError" if is_transient(error) else "StageError"


def _input(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, list):
        return [_input(item) for item in value]
    parts = {name: Part(tuple(File(**file) for file in files)) for name, files in value["parts"].items()}
    return Artifact(value["name"], value["home"], parts, value["key"], value["attempt"])


def _end_with_parent(parent: int) -> None:
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
