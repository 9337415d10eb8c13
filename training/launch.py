"""Several ranks of one training on this machine: started by torchrun, watched, ended together."""

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch

from data_curation import settings
from data_curation.counts import Counts
from data_curation.place import Place, Resources
from data_curation.settings import TokenmillError, TransientError
from training.pretrain import PhaseRun
from training.stop import on_sigterm
from training.trainers import device_of

if TYPE_CHECKING:
    from training.loop import Inputs

SPEC, ALIVE, ERROR = "ranks.json", "alive", "error.json"


def launch(run: PhaseRun, inputs: "Inputs", place: Place) -> Counts:
    """Train one phase on `run.resources.ranks` processes; returns what the first of them counted."""
    for name in (ALIVE, ERROR):
        (place.scratch / name).unlink(missing_ok=True)
    spec = place.scratch / SPEC
    spec.write_text(json.dumps(_plain(run, inputs, place)))
    (place.scratch / ALIVE).touch()
    number = str(place.resources.ranks)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", number]
    environment = os.environ | {"OMP_NUM_THREADS": str(place.resources.threads)}
    process = subprocess.Popen([*command, "-m", "training.launch", str(spec)], env=environment, start_new_session=True)
    try:
        with on_sigterm(lambda: _ask(process)):
            _watch(process, place)
    finally:
        _end(process)
    if device_of(place) == "cuda":
        torch.cuda.init()  # the manifest names the device of this process, which has used none so far
    finished = place.done("model")
    if process.returncode or finished is None:
        raise _failure(process.returncode, place)
    return finished.counts


def _ask(process: "subprocess.Popen[bytes]") -> None:
    """Ask the ranks to save and end. Not through torchrun, which would kill after 30 s what has not ended."""
    ranks = psutil.Process(process.pid).children()
    for one in ranks or [process]:
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            one.terminate()


def _watch(process: "subprocess.Popen[bytes]", place: Place) -> None:
    """Until the ranks end. Raises TransientError when they have made no step for too long."""
    while True:
        try:
            process.wait(timeout=0.5)
            return
        except subprocess.TimeoutExpired:
            quiet = time.time() - (place.scratch / ALIVE).stat().st_mtime
            if quiet >= place.resources.stall_seconds:
                raise TransientError(
                    f"{place.name}: the {place.resources.ranks} ranks have made no step for {quiet:.0f} s and were "
                    "ended: the newest checkpoint is kept, run it again"
                ) from None


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End torchrun and every rank, whatever state they are in."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    if process.poll() is None:
        process.kill()
    for one in family:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=30)
    process.wait()


def _failure(code: int | None, place: Place) -> TokenmillError:
    """The error that a rank named, as it was; otherwise that a rank ended."""
    try:
        error = json.loads((place.scratch / ERROR).read_text())
    except FileNotFoundError:
        return TransientError(
            f"{place.name}: a rank of {place.resources.ranks} ended without a word (torchrun's exit code {code}); "
            "its log is above"
        )
    return getattr(settings, error["kind"], TokenmillError)(error["text"])


def _plain(run: PhaseRun, inputs: "Inputs", place: Place) -> dict[str, Any]:
    return {
        "run": run.model_dump(mode="json"),
        "inputs": {name: None if path is None else str(path) for name, path in asdict(inputs).items()},
        "place": {"home": place.home, "scratch": str(place.scratch), "name": place.name},
        "resources": place.resources.model_dump(mode="json"),
        "launcher": os.getpid(),
    }


def main(spec: Path) -> None:
    """One rank."""
    data = json.loads(spec.read_text())
    threading.Thread(target=_leave_with, args=(data["launcher"], os.getppid()), daemon=True).start()
    from training.loop import Inputs, train

    place = Place(
        data["place"]["home"], Path(data["place"]["scratch"]), Resources(**data["resources"]), data["place"]["name"]
    )
    given = data["inputs"]
    folders = [None if given[name] is None else Path(given[name]) for name in ("model", "state", "heldout")]
    inputs = Inputs(given["shards"], Path(given["tokenizer"]), *folders)
    try:
        train(PhaseRun(**data["run"]), inputs, place)
    except TokenmillError as error:
        # The first error is the cause; those of other ranks follow from it.
        try:
            with (place.scratch / ERROR).open("x") as out:
                json.dump({"kind": type(error).__name__, "text": str(error)}, out)
        except FileExistsError:
            pass
        raise
    # All is written. Threads of torch's that still run would now and then abort an ordinary end.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _leave_with(launcher: int, torchrun: int) -> None:
    """End this rank when its launcher or torchrun is gone: kill -9 of either leaves its children running."""
    try:
        owner = psutil.Process(launcher)
        while os.getppid() == torchrun and owner.is_running() and owner.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.5)
    except psutil.NoSuchProcess:
        pass
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
