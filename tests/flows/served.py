"""A running `tokenmill ui` for tests that need the real thing."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
LIMIT = 300.0


@contextmanager
def tokenmill_ui(home: Path, *options: str) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """(process, API address) of a `tokenmill ui` that has said that it is ready; SIGTERM ends it."""
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    command = [sys.executable, "-m", "flows.cli", "ui", "--set", f"run.home={home}", *options]
    said = home.parent / f"{home.name}-{time.monotonic_ns()}.log"
    with said.open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + LIMIT
        while "Ctrl-C ends it" not in said.read_text():
            assert process.poll() is None and time.monotonic() < deadline, said.read_text()
            threading.Event().wait(0.2)
        yield process, json.loads((home / "server" / "server.json").read_text())["api"]
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(60)
