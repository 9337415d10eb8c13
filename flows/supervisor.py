"""The supervisor of a home's Prefect server: gives it a port of its own, starts it again, ends it after its last user.

python -m flows.supervisor HOME HOST PORT        (started by flows/server.py, never by hand)
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from data_curation.files import create_exclusively
from data_curation.settings import ConfigError
from flows.follow import following
from tasks.lease import alive

PORT = 4242  # not Prefect's own 4200, so that both can run


def main(home: Path, host: str, port: int) -> int:
    """Run the server below us until no process uses it any more; port 0 is any free one. Returns the exit code.

    `server/server.json` says whose it is and, while the server has a port, its address.
    """
    state = home / "server" / "server.json"
    me = {"pid": os.getpid(), "started": psutil.Process().create_time(), "host": host}
    if not create_exclusively(str(state), json.dumps(me).encode()):
        return 0  # another process was quicker; its server serves this home
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server, taken, known, lives = None, 0, False, False
    try:
        while used(home):
            if server is not None and server.poll() is not None and not lives:
                if port or known or _is_free(host, taken):
                    return 1  # nobody asked it to end: whoever waits for it should know at once
                taken = 0  # another server was quicker to take the port
            if server is None or server.poll() is not None:
                # Again after a crash, or the memory killer, where it was: runs that go on know no other address. Nobody
                # else is sent there before the server has the port again: another home's could take it meanwhile.
                _write(state, me)
                taken = taken or free_port(host, port)
                server, lives = _start(host, taken), False
            elif not lives and _listens(server, taken):
                known = lives = True
                _write(state, me | {"api": f"{_address(host, taken)}/api"})
            time.sleep(1 if lives else 0.2)
    finally:
        state.unlink(missing_ok=True)  # first: who comes now must not be sent to a server that is going
        if server is not None:
            server.terminate()
            with suppress(subprocess.TimeoutExpired):
                server.wait(10)  # if it takes longer, it is ended because we are gone
    return 0


def used(home: Path) -> bool:
    """Whether a process that uses the home's server is alive; marks of dead ones are removed."""
    found = False
    for mark in (home / "server" / "users").iterdir():
        pid, started = mark.name.split("-", 1)
        if alive(int(pid), float(started)):
            found = True
        else:
            mark.unlink(missing_ok=True)
    return found


def free_port(host: str, port: int) -> int:
    """The port if it is free; for 0 our usual one, so that bookmarks stay right, or any. Raises ConfigError."""
    for one in (port,) if port else (PORT, 0):
        if found := _is_free(host, one):
            return found
    where = f"--host {host}" + (f" --port {port}" if port else "")
    raise ConfigError(f"{where}: no free port there, or no address of this machine")


def _is_free(host: str, port: int) -> int:
    """The port, any one for 0, if a server could have it now; otherwise 0."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe, suppress(OSError, OverflowError):  # the latter: no number of a port
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return int(probe.getsockname()[1])
    return 0


def _start(host: str, port: int) -> subprocess.Popen[bytes]:
    address = _address(host, port)
    return subprocess.Popen(
        following([sys.executable, "-m", "prefect", "server", "start", "--host", host, "--port", str(port)]),
        env=os.environ
        | {
            "PREFECT_SERVER_UI_API_URL": "/api",  # of whatever address the browser has the UI from
            "PREFECT_UI_URL": address,  # in notifications
            # Any page in the same browser could ask for runs otherwise, and runs are code.
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": address,
        },
        stdin=subprocess.DEVNULL,
    )


def _listens(server: subprocess.Popen[bytes], port: int) -> bool:
    """Whether this very server listens there: a server of another home would answer just as well."""
    with suppress(psutil.Error):  # a process of it may be gone
        for process in psutil.Process(server.pid).children(recursive=True):
            for one in process.net_connections("tcp"):
                if one.status == psutil.CONN_LISTEN and one.laddr.port == port:
                    return True
    return False


def _address(host: str, port: int) -> str:
    """Where this machine itself reaches a server that listens on `host`."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _write(file: Path, data: dict[str, str | int | float]) -> None:
    whole = file.with_suffix(".new")
    whole.write_text(json.dumps(data))
    whole.replace(file)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
