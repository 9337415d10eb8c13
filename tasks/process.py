"""Runs a stage's function in a process group of its own, shows its progress and always ends it."""

import contextvars
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.files import join, write_bytes
from data_curation.place import Resources
from data_curation.settings import ConfigError, InputError, Settings, StageError, TransientError
from tasks.artifact import ROOT, Input
from tasks.scratch import scratch_folder
from tasks.secrets import clean

log = logging.getLogger("tokenmill")

ERRORS = {"ConfigError": ConfigError, "InputError": InputError, "StageError": StageError}
PIPE_SECONDS = 10.0  # for the last words of a child that is gone
TAIL_LINES = 20


@dataclass(frozen=True)
class Work:
    """One stage to run: its function (`module:name`), configuration, inputs and where it works."""

    name: str
    function: str
    config: Settings
    inputs: Mapping[str, Input]
    home: str
    resources: Resources
    seconds: float | None
    """Time limit; none is no limit."""


@dataclass
class Outcome:
    """What a finished child said, and what it took."""

    counts: Counts
    seconds: float
    peak_memory: int
    device: str
    """`cpu`, or the GPU's name."""


def run_child(work: Work, progress: Callable[[dict[str, Any]], None]) -> Outcome:
    """Run it to its end; raises the error tree's classes with the last lines of the log where they help."""
    with scratch_folder(work.name) as scratch:
        spec = scratch / "spec.json"
        spec.write_text(json.dumps(_spec(work, scratch / "scratch")))
        started = time.monotonic()
        child = subprocess.Popen(
            [sys.executable, "-m", "tasks.child", str(spec)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=_environment(work.resources),
            start_new_session=True,
            text=True,
            errors="replace",
        )
        tail: deque[str] = deque(maxlen=2000)
        # In the caller's context: there Prefect knows whose page a line of progress belongs to.
        context = contextvars.copy_context()
        reader = threading.Thread(target=context.run, args=(_read, child, tail, progress), daemon=True)
        reader.start()
        try:
            peak = _wait(child, work, started)
        finally:
            _end(child, work.resources.grace_seconds)
            # Whoever left the process group may still hold the pipe; nobody waits for that.
            reader.join(PIPE_SECONDS)
            # A store that is away must not hide why the stage failed.
            with suppress(Exception):
                write_bytes(join(work.home, "work", "log.txt"), clean("\n".join(tail)).encode())
        result = scratch / "result.json"
        answer = json.loads(clean(result.read_text())) if result.exists() else {}
        if "counts" not in answer:
            raise _error(work.name, child.returncode, answer, list(tail))
        return Outcome(Counts(**answer["counts"]), time.monotonic() - started, peak, answer["device"])


def _spec(work: Work, scratch: Path) -> dict[str, Any]:
    return {
        "parent": os.getpid(),
        "name": work.name,
        "function": work.function,
        "config": work.config.model_dump(mode="json"),
        "config_module": type(work.config).__module__,
        "config_class": type(work.config).__qualname__,
        "inputs": {name: _plain(value) for name, value in work.inputs.items()},
        "home": work.home,
        "scratch": str(scratch),
        "resources": work.resources.model_dump(mode="json"),
    }


def _plain(value: Input) -> Any:
    if value is None:
        return None
    if isinstance(value, Artifact):
        parts = {name: [asdict(file) for file in part.files] for name, part in value.parts.items()}
        return {"name": value.name, "home": value.home, "parts": parts, "key": value.key, "attempt": value.attempt}
    return [_plain(item) for item in value]


def _environment(resources: Resources) -> dict[str, str]:
    threads = str(resources.threads)
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        # Threads that spin while they wait starve each other when cores are shared: half the speed, measured.
        "OMP_WAIT_POLICY": "PASSIVE",
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "TOKENIZERS_PARALLELISM": "true",
    }


def _read(child: subprocess.Popen[str], tail: deque[str], progress: Callable[[dict[str, Any]], None]) -> None:
    assert child.stdout is not None
    with child.stdout as lines:
        for line in lines:
            if not (line.startswith("@progress ") and _shown(line.removeprefix("@progress "), progress)):
                tail.append(line.rstrip("\n"))


def _shown(line: str, progress: Callable[[dict[str, Any]], None]) -> bool:
    """Show a line of progress. Nothing may end the reader: a child whose pipe is full would wait for ever."""
    try:
        progress(json.loads(line))
    except Exception:
        return False
    return True


def _wait(child: subprocess.Popen[str], work: Work, started: float) -> int:
    """Wait for the end or the time limit; returns the peak of the summed resident memory, bytes."""
    peak, sampled = 0, 0.0
    while True:
        try:
            child.wait(timeout=0.1)
            return peak
        except subprocess.TimeoutExpired:
            now = time.monotonic()
            if now - sampled > 0.5:
                sampled, peak = now, max(peak, _memory(child.pid))
            if work.seconds is not None and now - started > work.seconds:
                limit = work.seconds / 3600
                raise StageError(
                    f"{work.name}: ended after its time limit of {limit:g} h: raise run.hours.{work.name.split('-')[0]}"
                ) from None


def _memory(pid: int) -> int:
    total = 0
    try:
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
    except psutil.NoSuchProcess:
        return total
    return total


def _end(child: subprocess.Popen[str], grace: float) -> None:
    """End the whole process group: ask, wait for what it saves, insist. Workers of a dead child are reached too."""
    try:
        if child.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                child.wait(grace)
    finally:  # a second Ctrl-C does not wait
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _error(name: str, code: int, answer: dict[str, Any], tail: list[str]) -> Exception:
    if not answer:
        # No word from the child: killed from outside or by the memory killer, so another try may pass.
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        log.error("%s: last lines of its log:\n%s", name, clean("\n".join(tail[-TAIL_LINES:])))
        return TransientError(f"{name}: its process ended by {how} without a result")
    kind = ERRORS.get(answer["error"], TransientError)
    if kind is StageError or kind is TransientError:
        log.error("%s: last lines of its log:\n%s", name, clean("\n".join(tail[-TAIL_LINES:])))
    message = str(answer["message"])
    return kind(message if message.startswith(f"{name}:") else f"{name}: {message}")
