"""One rank of a training: the process that torchrun starts; it ends with those who started it."""

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import psutil

from data_curation.place import Place, Resources
from data_curation.settings import StageError, TokenmillError, is_transient
from training.launch import ASKED, ERROR, machine
from training.torchrun import TORCHRUN


def main(spec: Path) -> None:
    """Do this rank's share of the work that the launcher wrote down."""
    data = json.loads(spec.read_text())
    launcher = data["launcher"]["process"] if data["launcher"]["machine"] == machine() else None
    watch = (int(os.environ[TORCHRUN]), launcher, spec.with_name(ASKED))
    threading.Thread(target=leave_with, args=watch, daemon=True).start()
    place = Place(
        data["place"]["home"], Path(data["place"]["scratch"]), Resources(**data["resources"]), data["place"]["name"]
    )
    module, function = data["work"].split(":")
    try:
        getattr(import_module(module), function)(data["given"], place)
    except Exception as error:
        _tell(error, place.scratch / ERROR)
        raise
    # All is written. Threads of torch's that still run would now and then abort an ordinary end.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _tell(error: Exception, file: Path) -> None:
    """Leave the launcher word of an error that another try would meet again.

    The first error is the cause, those of other ranks follow from it; collectives that lose a rank raise RuntimeError.
    """
    kind, text = type(error).__name__, str(error)
    if not isinstance(error, TokenmillError):
        if isinstance(error, RuntimeError) or is_transient(error):
            return
        kind, text = StageError.__name__, f"{kind}: {text}"
    with suppress(FileExistsError), file.open("x") as out:
        json.dump({"kind": kind, "text": text}, out)


def leave_with(torchrun: int, launcher: int | None, asked: Path) -> None:
    """End this rank when torchrun or a launcher on this machine is gone: kill -9 of either leaves its children running.

    Pass on to it the wish to save and end. Not through torchrun, which would kill after 30 s what has not ended.
    """
    told = False
    try:
        owner = None if launcher is None else psutil.Process(launcher)
        while os.getppid() == torchrun and (owner is None or _alive(owner)):
            if not told and asked.exists():
                told = True
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)
    except psutil.NoSuchProcess:
        pass
    os._exit(1)


def _alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


if __name__ == "__main__":
    main(Path(sys.argv[1]))
