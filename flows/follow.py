"""Runs a command that ends when its parent does, whatever ended that.

python -m flows.follow COMMAND...       (a server or worker must not outlive `kill -9` of who started it)
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

GRACE_SECONDS = 20.0


def following(command: Sequence[str]) -> list[str]:
    """The command line that runs `command` below this process and no longer than it."""
    return [sys.executable, "-m", "flows.follow", str(os.getpid()), *command]


def main(parent: int, command: Sequence[str]) -> int:
    """Run the command to its end, or to that of the parent; a request to end is passed on."""
    child = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this decides what Ctrl-C means
    while child.poll() is None and os.getppid() == parent:
        with suppress(subprocess.TimeoutExpired):
            child.wait(0.5)
    if child.poll() is None:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_SECONDS)
        child.kill()
    return child.wait()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
