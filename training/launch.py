"""Several ranks of one training, on one machine or more: started by torchrun, watched, ended together."""

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.distributed import TCPStore  # type: ignore[reportPrivateImportUsage]

from data_curation import settings
from data_curation.files import is_local, local_path
from data_curation.place import Piece, Place, Resources
from data_curation.settings import ConfigError, TokenmillError, TransientError
from training.stop import on_sigterm
from training.trainers import device_of

SPEC, ALIVE, ASKED, ERROR = "ranks.json", "alive", "asked", "error.json"
LAST = 60.0  # seconds that other machines have to end their ranks; torchrun kills after 30


def launch(work: str, given: dict[str, Any], place: Place, stall_seconds: float | None = None) -> Piece:
    """Call `work` (`module:function`) with `given` and the place on `run.resources.ranks` processes.

    Returns the piece `model`, which the first of them makes. They are ended after `stall_seconds` without a step, if
    that is a number.
    """
    with _reached_by_all(place) as shared:
        piece = _launch(work, given, shared, stall_seconds)
    if device_of(place) == "cuda":
        torch.cuda.init()  # the manifest names the device of this process, which has used none so far
    return piece


def machine() -> str:
    """This machine, or container, within which a process has one number."""
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {namespace.readlink() if namespace.is_symlink() else ''}"


def _launch(work: str, given: dict[str, Any], place: Place, stall_seconds: float | None) -> Piece:
    for name in (ALIVE, ASKED, ERROR):
        (place.scratch / name).unlink(missing_ok=True)
    spec = place.scratch / SPEC
    spec.write_text(json.dumps({"work": work, "given": given} | _plain(place)))
    (place.scratch / ALIVE).touch()
    # Where several machines meet. It ends with this process, whatever ends that, and then their torchruns end.
    meeting = None if place.resources.nodes == 1 else TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    command = [*_torchrun(place.resources, meeting), "-m", "training.rank", str(spec)]
    environment = os.environ | {"OMP_NUM_THREADS": str(place.resources.threads)}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        with on_sigterm((place.scratch / ASKED).touch):
            _watch(process, place, stall_seconds)
    finally:
        if meeting is not None:
            del meeting
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=LAST)
        _end(process)
    finished = place.done("model")
    if process.returncode or finished is None:
        raise _failure(process.returncode, place)
    return finished


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
    command = [sys.executable, "-m", "training.torchrun", "--nproc-per-node", number]
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


def _watch(process: "subprocess.Popen[bytes]", place: Place, stall_seconds: float | None) -> None:
    """Until the ranks end. Raises TransientError when they have made no step for too long."""
    while True:
        try:
            process.wait(timeout=0.5)
            return
        except subprocess.TimeoutExpired:
            quiet = time.time() - (place.scratch / ALIVE).stat().st_mtime
            if stall_seconds is not None and quiet >= stall_seconds:
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
        if (place.scratch / ASKED).exists():
            return TransientError(f"{place.name}: SIGTERM ended it; run it again to go on from its last checkpoint")
        one = f"a rank of {place.resources.ranks}" + (" or a node" if place.resources.nodes > 1 else "")
        return TransientError(
            f"{place.name}: {one} ended without a word (torchrun's exit code {code}); its log is above"
        )
    return getattr(settings, error["kind"], TokenmillError)(error["text"])


def _plain(place: Place) -> dict[str, Any]:
    return {
        "place": {"home": place.home, "scratch": str(place.scratch), "name": place.name},
        "resources": place.resources.model_dump(mode="json"),
        "launcher": {"machine": machine(), "process": os.getpid()},
    }
