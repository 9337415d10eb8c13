"""Leases: which process of which host holds an attempt, and whether it still lives."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil

BEAT_SECONDS = 15.0
STALE_SECONDS = 90.0


@dataclass(frozen=True)
class Lease:
    """Who holds an attempt."""

    host: str
    pid: int
    started: float
    """Start of the process, seconds since the epoch: a pid alone may have been given away again."""
    run: str

    @staticmethod
    def mine(run: str) -> "Lease":
        """The lease of this process."""
        return Lease(this_host(), os.getpid(), psutil.Process().create_time(), run)

    def alive_here(self) -> bool:
        """Whether the holder, a process of this host, still runs."""
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.started) < 1 and process.status() != psutil.STATUS_ZOMBIE
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
