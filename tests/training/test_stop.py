"""Guarantees of ends from outside: a process that hangs is ended, with words on where, and one that lives is not."""

import subprocess
import sys

HANG = """
import threading
from training.stop import ended_when_silent
with ended_when_silent({seconds}) as alive:
    for _ in range(20):
        alive()
    if {hang}:
        threading.Event().wait()
"""


def ran(seconds: float | None, hang: bool) -> "subprocess.CompletedProcess[str]":
    """A process that calls `alive` and then hangs, or does not."""
    code = HANG.format(seconds=seconds, hang=hang)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_a_hang_is_ended_and_shown() -> None:
    """Without a step for the seconds that it may take, the process ends and every thread's place is in the log."""
    hung = ran(0.2, True)
    assert hung.returncode == 1
    assert "Timeout" in hung.stderr and 'File "<string>", line 8' in hung.stderr


def test_who_lives_is_not_ended() -> None:
    """Steps that come, a block that is left and no limit at all end nothing."""
    assert ran(600, False).returncode == 0
    assert ran(None, False).returncode == 0
