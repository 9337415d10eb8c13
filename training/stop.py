"""Ends that come from outside: SIGTERM as a wish, and the end of a training that hangs."""

import faulthandler
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any


@contextmanager
def on_sigterm(action: Callable[[], Any]) -> Generator[None]:
    """Run `action` when SIGTERM comes; outside the main thread, which alone gets signals, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: action())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def ended_when_silent(seconds: float | None) -> Generator[Callable[[], None]]:
    """End this process when the function that is yielded was not called for so many seconds; none never ends it.

    A thread of its own that needs no lock of Python's does it, so that a hang in a library is ended too; where every
    thread stood goes to stderr.
    """

    def alive() -> None:
        if seconds is not None:
            faulthandler.dump_traceback_later(seconds, exit=True, file=2)

    alive()
    try:
        yield alive
    finally:
        if seconds is not None:
            faulthandler.cancel_dump_traceback_later()
