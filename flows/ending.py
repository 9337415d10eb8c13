"""How a command ends: its exit code, and one line of what went wrong."""

import signal
import sys
import traceback

from data_curation.settings import ConfigError, TokenmillError

DONE, FAILED, WRONG, STOPPED = 0, 1, 2, 130


class Terminated(KeyboardInterrupt):
    """SIGTERM: the run ends as it does at Ctrl-C."""


def failure(error: BaseException) -> int:
    """Say in one line what went wrong; returns the exit code."""
    if isinstance(error, KeyboardInterrupt):
        print("tokenmill: stopped; the next run goes on from here", file=sys.stderr)
        return 128 + signal.SIGTERM if isinstance(error, Terminated) else STOPPED
    words = str(error) if isinstance(error, TokenmillError) else f"{type(error).__name__}: {error}"
    print(f"tokenmill: {words}", file=sys.stderr)
    if not isinstance(error, TokenmillError):
        traceback.print_exception(error)  # nobody has thought of this one: all of it may be needed
    return WRONG if isinstance(error, ConfigError) or isinstance(error.__cause__, ConfigError) else FAILED
