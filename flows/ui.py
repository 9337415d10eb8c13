"""`tokenmill ui`: server, process work pool, deployments and worker in one go."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

from data_curation.settings import TokenmillError
from flows.config import PipelineConfig
from flows.follow import following
from flows.server import environment, serving

POOL = "tokenmill"
ROOT = Path(__file__).parent.parent


def serve(config: PipelineConfig, database: str, port: int) -> int:
    """Bring everything up, print the address, and end what was started at Ctrl-C or SIGTERM."""
    home = Path(config.run.home)
    with serving(home, database, port) as api:
        settings = os.environ | environment(home, api, database)
        _prefect(settings, "work-pool", "create", POOL, "--type", "process", "--overwrite")
        _prefect(settings, "--no-prompt", "deploy", "--all")
        worker = subprocess.Popen(
            following([sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL]),
            env=settings,
            cwd=ROOT,
            start_new_session=True,
        )
        print(f"for prefect's own commands: export PREFECT_API_URL={api}")
        print(f"Tokenmill's runs, schedules and pages: {api.removesuffix('/api')}  (Ctrl-C ends it)", flush=True)
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            code = worker.wait()
        except KeyboardInterrupt:
            code = 0
        finally:
            _end(worker)
    return code


def _prefect(settings: dict[str, str], *words: str) -> None:
    command = [sys.executable, "-m", "prefect", *words]
    done = subprocess.run(command, env=settings, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise TokenmillError(f"prefect {' '.join(words)} failed:\n{(done.stdout + done.stderr).strip()[-2000:]}")


def _end(worker: "subprocess.Popen[bytes]") -> None:
    """The worker first, politely: it lets its flow runs stop their stages."""
    worker.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        worker.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
