"""Runs a stage's function in a process group of its own, shows its progress and always ends it."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
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

log = logging.getLogger("tokenmill")

ERRORS = {"ConfigError": ConfigError, "InputError": InputError, "StageError": StageError}
GRACE_SECONDS = 10.0
TAIL_LINES = 20
# s3://user:secret@host or ?token=... in a library's message must not reach logs and pages.
SECRETS = (
    re.compile(r"(?<=://)[^/\s@]+:[^@\s/]+(?=@)"),
    re.compile(r"(?i)(?:(?<=token=)|(?<=secret=)|(?<=password=)|(?<=signature=))[^&\s]+"),
)


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
    with tempfile.TemporaryDirectory(prefix=f"tokenmill-{work.name}-") as scratch:
        spec = Path(scratch) / "spec.json"
        spec.write_text(json.dumps(_spec(work, Path(scratch) / "scratch")))
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
        reader = threading.Thread(target=_read, args=(child, tail, progress), daemon=True)
        reader.start()
        try:
            peak = _wait(child, work, started)
        finally:
            _end(child)
            reader.join()
            assert child.stdout is not None
            child.stdout.close()
            # A store that is away must not hide why the stage failed.
            with suppress(Exception):
                write_bytes(join(work.home, "work", "log.txt"), "\n".join(tail).encode())
        result = Path(scratch) / "result.json"
        answer = json.loads(result.read_text()) if result.exists() else {}
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
    for line in child.stdout:
        if line.startswith("@progress "):
            progress(json.loads(line.removeprefix("@progress ")))
        else:
            tail.append(line.rstrip("\n"))


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


def _end(child: subprocess.Popen[str]) -> None:
    """End the whole process group: ask, wait, insist. Workers of a dead child are reached too."""
    if child.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_SECONDS)
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
    message = clean(answer["message"])
    if kind is StageError or kind is TransientError:
        log.error("%s: last lines of its log:\n%s", name, clean("\n".join(tail[-TAIL_LINES:])))
    return kind(f"{name}: {message}")


def clean(text: str) -> str:
    """Text without credentials that a library's message may carry."""
    for pattern in SECRETS:
        text = pattern.sub("***", text)
    return text
