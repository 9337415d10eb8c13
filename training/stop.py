"""SIGTERM as a wish: something is done about it instead of ending at once."""

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
