"""Several ranks of one training, on one machine or more: started by torchrun, watched, ended together."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch
from torch.distributed import TCPStore  # type: ignore[reportPrivateImportUsage]

from data_curation import settings
from data_curation.counts import Counts
from data_curation.files import is_local, local_path
from data_curation.place import Place, Resources
from data_curation.settings import ConfigError, TokenmillError, TransientError
from training.pretrain import PhaseRun
from training.stop import on_sigterm
from training.trainers import device_of

if TYPE_CHECKING:
    from training.loop import Inputs

SPEC, ALIVE, ASKED, ERROR = "ranks.json", "alive", "asked", "error.json"
LAST = 60.0  # seconds that other machines have to end their ranks; torchrun kills after 30


def launch(run: PhaseRun, inputs: "Inputs", place: Place) -> Counts:
    """Train one phase on `run.resources.ranks` processes; returns what the first of them counted."""
    with _reached_by_all(place) as shared:
        counts = _launch(run, inputs, shared)
    if device_of(place) == "cuda":
        torch.cuda.init()  # the manifest names the device of this process, which has used none so far
    return counts


def _launch(run: PhaseRun, inputs: "Inputs", place: Place) -> Counts:
    for name in (ALIVE, ASKED, ERROR):
        (place.scratch / name).unlink(missing_ok=True)
    spec = place.scratch / SPEC
    spec.write_text(json.dumps(_plain(run, inputs, place)))
    (place.scratch / ALIVE).touch()
    # Where several machines meet. It ends with this process, whatever ends that, and then their torchruns end.
    meeting = None if place.resources.nodes == 1 else TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    command = [*_torchrun(place.resources, meeting), "-m", "training.launch", str(spec)]
    environment = os.environ | {"OMP_NUM_THREADS": str(place.resources.threads)}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        with on_sigterm((place.scratch / ASKED).touch):
            _watch(process, place)
    finally:
        if meeting is not None:
            del meeting
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=LAST)
        _end(process)
    finished = place.done("model")
    if process.returncode or finished is None:
        raise _failure(process.returncode, place)
    return finished.counts


@contextmanager
def _reached_by_all(place: Place) -> Generator[Place]:
    """The place with a scratch folder that all nodes reach: in the store, where that is a folder."""
    if place.resources.nodes == 1 or not is_local(place.home):
        yield place
        return
    folder = local_path(place.work("ranks"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield replace(place, scratch=folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _torchrun(resources: Resources, meeting: TCPStore | None) -> list[str]:
    """What starts the ranks: torchrun, or the launcher's words and one for each of the nodes that meet."""
    number = str(resources.ranks // resources.nodes)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", number]
    if meeting is None:
        return [*command, "--standalone"]
    words = shlex.split(resources.launcher.replace("{nodes}", str(resources.nodes)))
    if not words or shutil.which(words[0]) is None:
        raise ConfigError(
            f"run.resources.launcher is {resources.launcher!r}: no such command here: give one that starts what "
            f"follows it on each of {resources.nodes} nodes"
        )
    where = f"{socket.gethostname()}:{meeting.port}"
    meet = ["--rdzv-backend", "c10d", "--rdzv-endpoint", where, "--rdzv-id", "ranks", "--rdzv-conf", "is_host=false"]
    return [*words, *command, "--nnodes", str(resources.nodes), *meet]


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
    """End torchrun and every rank on this machine, whatever state they are in."""
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
        one = f"a rank of {place.resources.ranks}" + (" or a node" if place.resources.nodes > 1 else "")
        return TransientError(
            f"{place.name}: {one} ended without a word (torchrun's exit code {code}); its log is above"
        )
    return getattr(settings, error["kind"], TokenmillError)(error["text"])


def _plain(run: PhaseRun, inputs: "Inputs", place: Place) -> dict[str, Any]:
    return {
        "run": run.model_dump(mode="json"),
        "inputs": {name: None if path is None else str(path) for name, path in asdict(inputs).items()},
        "place": {"home": place.home, "scratch": str(place.scratch), "name": place.name},
        "resources": place.resources.model_dump(mode="json"),
        "launcher": {"host": socket.gethostname(), "process": os.getpid()},
    }


def main(spec: Path) -> None:
    """One rank."""
    data = json.loads(spec.read_text())
    launcher = data["launcher"]["process"] if data["launcher"]["host"] == socket.gethostname() else None
    watch = (os.getppid(), launcher, spec.with_name(ASKED))
    threading.Thread(target=_leave_with, args=watch, daemon=True).start()
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


def _leave_with(torchrun: int, launcher: int | None, asked: Path) -> None:
    """End this rank when torchrun or a launcher on this machine is gone: kill -9 of either leaves its children running.

    Pass on to it the wish to save and end. Not through torchrun, which would kill after 30 s what has not ended.
    """
    told = False
    try:
        owner = None if launcher is None else psutil.Process(launcher)
        # The parent is the first process where torchrun was gone before this rank looked for it.
        while os.getppid() == torchrun != 1 and (owner is None or _alive(owner)):
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
