"""`tokenmill ui`: server, process work pool, deployments, automation and worker in one go."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from data_curation.settings import ConfigError, TokenmillError
from flows.config import PipelineConfig
from flows.follow import following
from flows.server import check_host, environment, running_api, serving

POOL = "tokenmill"
ROOT = Path(__file__).parent.parent


def serve(config: PipelineConfig, database: str, host: str, port: int) -> int:
    """Bring everything up, print the address, and end what was started at Ctrl-C or SIGTERM."""
    check_host(host)
    home = Path(config.run.home)
    with serving(home, database, port, host) as api:
        settings = os.environ | environment(home, api, database)
        _call(settings, "prefect", "work-pool", "create", POOL, "--type", "process", "--overwrite")
        _call(settings, "prefect", "--no-prompt", "deploy", "--all")
        _call(settings, "flows.notify")
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


def notify(config: PipelineConfig, blocks: Sequence[str]) -> int:
    """Have the server of PREFECT_API_URL, or of run.home, tell these notification blocks how runs end."""
    if not os.environ.get("PREFECT_API_URL"):
        home = Path(config.run.home)
        if not (api := running_api(home)):
            raise ConfigError(f"run.home: no server runs for {home}: start `tokenmill ui`, or set PREFECT_API_URL")
        os.environ.update(environment(home, api))
    from flows.notify import automate

    automate(blocks)
    told = f"told: {', '.join(blocks)}" if blocks else "nobody is told how runs end"
    print(f"{told}; runs that die without a word are marked crashed")
    return 0


def _call(settings: dict[str, str], *words: str) -> None:
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, env=settings, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise TokenmillError(f"{' '.join(words)} failed:\n{(done.stdout + done.stderr).strip()[-2000:]}")


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
