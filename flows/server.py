"""Our Prefect server on loopback: one per home folder, shared by runs, ended when its last user is gone.

python -m flows.server HOME PORT        (started by `serving`, never by hand)
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from data_curation.files import create_exclusively
from data_curation.settings import ConfigError, TokenmillError
from flows.follow import following
from tasks.lease import alive

START_SECONDS = 120.0
PORT = 4242  # not Prefect's own 4200, so that both can run


def environment(home: Path, api: str = "", database: str = "") -> dict[str, str]:
    """Settings under which Prefect keeps everything in our folder and sends nothing anywhere."""
    home = home.resolve()
    settings = {
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY", os.environ.get("no_proxy", "")), "127.0.0.1"])),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database or f"sqlite+aiosqlite:///{home / 'prefect.db'}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": os.environ.get("PREFECT_LOGGING_LEVEL", "INFO"),
        "PREFECT_LOGGING_EXTRA_LOGGERS": "tokenmill",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",  # heartbeats have a thread and no flow
        "PREFECT_CLI_PROMPT": "false",
        "DO_NOT_TRACK": "1",
    }
    return settings | ({"PREFECT_API_URL": api} if api else {})


@contextmanager
def serving(home: Path, database: str = "", port: int = 0) -> Generator[str]:
    """The API address of the home's server, started if none runs; it ends some seconds after its last user."""
    home = home.resolve()  # the server works in another folder
    users = home / "server" / "users"
    try:
        users.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"run.home: cannot write to {home} ({error.strerror}): choose another folder") from error
    me = users / f"{os.getpid()}-{psutil.Process().create_time()}"
    me.touch()
    started: list[subprocess.Popen[bytes]] = []
    try:
        yield _address(home, database, port, started)
    finally:
        me.unlink(missing_ok=True)
        for process in started:
            while process.poll() is None and not _used(home):
                time.sleep(0.1)  # what this process started is gone when it ends, unless others use it


def flush() -> None:
    """Send what Prefect still holds back, before its server ends: otherwise its threads retry for a minute."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for service in (APILogWorker, EventsWorker):
        service.drain_all(timeout=10)


def _address(home: Path, database: str, port: int, started: list["subprocess.Popen[bytes]"]) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        state = _state(home)
        if state and not alive(state["pid"], state["started"]):
            # Its process number, and its port, may belong to others by now.
            (home / "server" / "server.json").unlink(missing_ok=True)
        elif state and _healthy(state["api"]):
            return str(state["api"])
        elif state is None and not started:
            started.append(_start(home, database, port or _free_port()))
        elif started and started[0].poll() not in (None, 0):
            raise TokenmillError(f"the Prefect server ended at once: see {home / 'server' / 'log.txt'}")
        time.sleep(0.2)
    raise TokenmillError(
        f"the Prefect server did not answer in {START_SECONDS:.0f} s: see {home / 'server' / 'log.txt'}"
    )


def _start(home: Path, database: str, port: int) -> subprocess.Popen[bytes]:
    with (home / "server" / "log.txt").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.server", str(home), str(port)],
            # Without its own address the UI asks port 4200, whatever port it was served from.
            env=os.environ
            | environment(home, database=database)
            | {"PREFECT_SERVER_UI_API_URL": f"http://127.0.0.1:{port}/api"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C in the terminal is for the run; the server sees it through to its report
            cwd=Path(__file__).parent.parent,
        )


def _state(home: Path) -> dict[str, Any] | None:
    try:
        return json.loads((home / "server" / "server.json").read_text())
    except (FileNotFoundError, ValueError):
        return None


def _healthy(api: str) -> bool:
    try:
        # A proxy does not know this machine's loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{api}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _free_port() -> int:
    """Our usual port, so that bookmarks stay right, or any free one."""
    for port in (PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise TokenmillError("no free port on 127.0.0.1")


def main(home: Path, port: int) -> int:
    """Run the server below us until no process uses it any more."""
    state = home / "server" / "server.json"
    me = {"pid": os.getpid(), "started": psutil.Process().create_time(), "api": f"http://127.0.0.1:{port}/api"}
    mine = json.dumps(me).encode()
    if not create_exclusively(str(state), mine):
        return 0  # another process was quicker; its server serves this home
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(following(command), stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        while (failed := server.poll()) is None and _used(home):
            time.sleep(1)
    finally:
        state.unlink(missing_ok=True)  # first: who comes now must not be sent to a server that is going
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(10)  # if it takes longer, it is ended because we are gone
    return 0 if failed is None else 1  # nobody asked it to end: whoever waits for it should know at once


def _used(home: Path) -> bool:
    """Whether a process that uses the server is alive; marks of dead ones are removed."""
    used = False
    for mark in (home / "server" / "users").iterdir():
        pid, started = mark.name.split("-", 1)
        if alive(int(pid), float(started)):
            used = True
        else:
            mark.unlink(missing_ok=True)
    return used


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
