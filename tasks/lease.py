"""Leases: which process of which host holds an attempt, and whether it still lives."""

import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil

BEAT_SECONDS = 15.0
STALE_SECONDS = 90.0
HELD: set[str] = set()
"""Tokens of the leases whose attempts this process holds just now."""


@dataclass(frozen=True)
class Lease:
    """Who holds an attempt."""

    host: str
    pid: int
    started: float
    """Start of the process, seconds since the epoch: a pid alone may have been given away again."""
    run: str
    token: str = ""
    """Drawn for each claim: tells the claims of one process from each other."""
    code: str = ""
    """Hash of the stage's file: pieces that another version of it made are not adopted."""

    @staticmethod
    def new(run: str, code: str = "") -> "Lease":
        """A lease of this process."""
        return Lease(this_host(), os.getpid(), psutil.Process().create_time(), run, secrets.token_hex(8), code)

    @property
    def mine(self) -> bool:
        """Whether it names this process."""
        return self.pid == os.getpid() and self.host == this_host()


def alive(pid: int, started: float) -> bool:
    """Whether the process of this host that started then still runs."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def this_host() -> str:
    """This host, and which process numbers it means: a container has its own."""
    marks = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            marks.append(Path(path).read_text().strip() if path.endswith("boot_id") else str(Path(path).readlink()))
        except OSError:
            continue
    return "/".join(marks)
