"""Pages that may be bombs, taken in a process of their own, which ends where one takes too long."""

import atexit
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

from data_curation.settings import TransientError

if TYPE_CHECKING:
    from data_curation.html_lean import Lean
    from data_curation.html_text import Extracted

SECONDS = 10
"""CPU seconds, whole ones, that one page may take there; pages within `html_text.MAX_SECONDS` are estimated to take
half of that, so only a page that deceives the estimate, or a far slower machine, comes near."""
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE)


class Sandbox:
    """A process that takes one page after another; one that a page ends is replaced for the next."""

    def __init__(self, seconds: int = SECONDS) -> None:
        self.seconds = seconds
        self.process: subprocess.Popen[bytes] | None = None
        self.owner = 0
        self.lock = threading.Lock()

    def take(self, page: "Lean", url: str | None, charset: str | None, main_share: float) -> "Extracted":
        """What `html_text.take` gives; dropped as too-slow or not-parsable where the process did not survive it."""
        from data_curation.html_text import Extracted

        with self.lock:
            process = self._running()
            assert process.stdin and process.stdout
            try:
                pickle.dump((page, url, charset, main_share), process.stdin, pickle.HIGHEST_PROTOCOL)
                process.stdin.flush()
                return cast(Extracted, pickle.load(process.stdout))
            except (EOFError, BrokenPipeError, pickle.UnpicklingError):
                code = self._end()
        if code == -signal.SIGXCPU:
            return Extracted(reason="too-slow")
        if -code in _CRASHES:
            return Extracted(reason="not-parsable")
        raise TransientError(f"the process for large pages ended with code {code} (out of memory?) at {url}")

    def close(self) -> None:
        """End the process, if there is one."""
        if self.process and self.owner == os.getpid():
            self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        if self.process is None or self.owner != os.getpid():  # a fork has its parent's pipes, and must not use them
            command = [sys.executable, "-m", "data_curation.html_sandbox", str(self.seconds)]
            root = Path(__file__).parents[1]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root)
            self.owner = os.getpid()
        return self.process

    def _end(self) -> int:
        process, self.process = self.process, None
        assert process and process.stdin and process.stdout
        with suppress(BrokenPipeError):  # what was not sent is not missed
            process.stdin.close()
        process.stdout.close()
        return process.wait()


SANDBOX = Sandbox()
atexit.register(SANDBOX.close)


def serve(seconds: int) -> None:
    """Take pages from standard input until it ends; the kernel ends this process where one takes longer."""
    from data_curation.html_text import take

    pages, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not stand between two answers
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    while True:
        try:
            page = pickle.load(pages)
        except EOFError:
            return
        # CPU seconds, not those of the clock: a busy machine must not change what is kept.
        resource.setrlimit(resource.RLIMIT_CPU, (int(sum(os.times()[:2])) + 1 + seconds, most))
        pickle.dump(take(*page), answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
