"""Our Prefect server on loopback: one per home folder, shared by runs, ended when its last user is gone."""

import ipaddress
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from data_curation.settings import ConfigError, TokenmillError
from flows.supervisor import free_port, used
from tasks.lease import alive

START_SECONDS = 120.0
LOOPBACK = "127.0.0.1"
HEARTBEAT = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}  # flows/notify.py marks runs crashed that miss five


def environment(home: Path, api: str = "", database: str = "") -> dict[str, str]:
    """Settings under which Prefect keeps everything in our folder and sends nothing anywhere."""
    home = home.resolve()
    settings = {
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY", os.environ.get("no_proxy", "")), "127.0.0.1"])),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database or f"sqlite+aiosqlite:///{home / 'prefect.db'}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        **HEARTBEAT,
        "PREFECT_LOGGING_LEVEL": os.environ.get("PREFECT_LOGGING_LEVEL", "INFO"),
        "PREFECT_LOGGING_EXTRA_LOGGERS": "tokenmill",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",  # heartbeats have a thread and no flow
        "PREFECT_CLI_PROMPT": "false",
        "DO_NOT_TRACK": "1",
    }
    if secret := os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        settings["PREFECT_API_AUTH_STRING"] = os.environ.get("PREFECT_API_AUTH_STRING", secret)
    return settings | ({"PREFECT_API_URL": api} if api else {})


def check_host(host: str) -> None:
    """A ConfigError for an address that others can reach while there is no password: who runs flows runs any code."""
    with suppress(ValueError):
        if host == "localhost" or ipaddress.ip_address(host).is_loopback:
            return
    if not os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        raise ConfigError(
            f"--host {host}: others could reach it, and whoever does can run any code here: set "
            "PREFECT_SERVER_API_AUTH_STRING to NAME:PASSWORD, or leave --host out"
        )


def running_api(home: Path) -> str:
    """The API address of the server that runs for a home just now; empty if there is none."""
    state = _state(home)
    return str(state["api"]) if state and alive(state["pid"], state["started"]) and _healthy(state) else ""


@contextmanager
def serving(home: Path, database: str = "", port: int = 0, host: str = LOOPBACK) -> Generator[str]:
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
        yield _address(home, database, host, port, started)
    finally:
        me.unlink(missing_ok=True)
        for process in started:
            while process.poll() is None and not used(home):
                time.sleep(0.1)  # what this process started is gone when it ends, unless others use it


def flush() -> None:
    """Send what Prefect still holds back, before its server ends: otherwise its threads retry for a minute."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for service in (APILogWorker, EventsWorker):
        service.drain_all(timeout=10)


def _address(home: Path, database: str, host: str, port: int, started: list["subprocess.Popen[bytes]"]) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        state = _state(home)
        if state and not alive(state["pid"], state["started"]):
            # Its process number, and its port, may belong to others by now.
            (home / "server" / "server.json").unlink(missing_ok=True)
        elif state and _healthy(state):
            if host not in (LOOPBACK, state["host"]):
                raise ConfigError(f"--host {host}: a server of {home} runs already on {state['host']}: end it first")
            return str(state["api"])
        elif state is None and not started:
            free_port(host, port)  # without one, who asked is told at once
            started.append(_start(home, database, host, port))
        elif started and started[0].poll() not in (None, 0):
            raise TokenmillError(f"the Prefect server ended at once: see {home / 'server' / 'log.txt'}")
        time.sleep(0.2)
    raise TokenmillError(
        f"the Prefect server did not answer in {START_SECONDS:.0f} s: see {home / 'server' / 'log.txt'}"
    )


def _start(home: Path, database: str, host: str, port: int) -> subprocess.Popen[bytes]:
    with (home / "server" / "log.txt").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.supervisor", str(home), host, str(port)],
            env=os.environ | environment(home, database=database),
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


def _healthy(state: dict[str, Any]) -> bool:
    """Whether the server answers; it has an address as soon as it has its port."""
    if "api" not in state:
        return False
    try:
        # A proxy does not know this machine's loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{state['api']}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
