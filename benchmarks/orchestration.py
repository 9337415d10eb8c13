"""What orchestration costs: a cached pipeline, a stage, a plan over a large store, several pipelines at once.

python -m benchmarks.orchestration [--json] [--save] [--artifacts 10000] [--database postgresql+asyncpg://...]
"""

import argparse
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

from benchmarks.measure import Row, finish, options, row
from data_curation.artifact import Part
from data_curation.counts import Counts
from data_curation.files import join, write_bytes
from data_curation.settings import sha256_of
from flows.config import WORDS, load
from flows.plan import Asked, plan
from flows.server import environment, serving
from tasks import curation, training
from tasks.artifact import Manifest
from tasks.stage import Stage
from tasks.why import code_hash

TITLE = "what orchestration costs"
NOTE = """The artifacts are planted: their manifests and one small file each, under the keys that the demo asks for, and
as many others beside them. `cached pipeline` is a second call in one process, after imports, on a running
server (SQLite); `a stage` is the road less its first stage by the number of stages, without heartbeats. `plan`
is the command from the shell, imports included. CPU seconds are of the process alone. Pipelines at once: commands."""
RUNS = 100
AT_ONCE = 4


def main() -> int:
    """Measure everything; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    options(parser)
    parser.add_argument("--artifacts", type=int, default=10_000, help="artifacts of the large store")
    parser.add_argument("--database", default="", metavar="URL", help="PostgreSQL for the pipelines at once")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tokenmill-bench-") as folder:
        store = f"{folder}/store"
        stages = plant(Path(folder), store, asked.artifacts)
        rows = cached_rows(Path(folder), store, stages) + plan_rows(Path(folder), "on disk", store, asked.artifacts)
        with s3() as bucket:
            plant(Path(folder), bucket, asked.artifacts)
            rows += plan_rows(Path(folder), "on s3 (moto)", bucket, asked.artifacts)
        rows += at_once(Path(folder), store, asked.database) if asked.database else []
    agreement = {"stages of the road": stages, "PostgreSQL": "measured" if asked.database else "not run: no --database"}
    return finish("orchestration", TITLE, NOTE, {"rows": rows, "agreement": agreement}, asked)


def sets(folder: Path) -> list[str]:
    """Settings over the demo's that need no network: one page is all that there is to read."""
    pages = folder / "pages"
    pages.mkdir(exist_ok=True)
    (pages / "page.html").write_text("<html><body><p>One page.</p></body></html>")
    return ["dialogues.sources=[]", f"extract.sources=[{{name: pages, kind: html, path: {pages}}}]"]


def plant(folder: Path, store: str, number: int) -> int:
    """A store in which every stage of the road is cached, beside as many others; returns the stages of the road."""
    config = load("demo", [*sets(folder), f"run.store={store}"])
    planned = plan("demo", config, Asked())
    while todo := [record for record in planned.stages if record.state == "run" and record.key]:
        for record in todo:
            _artifact(store, record.stage, record.key, _parts())
        planned = plan("demo", config, Asked())
    with ThreadPoolExecutor(16) as pool:
        others = range(number - len(planned.stages))
        list(pool.map(lambda index: _artifact(store, WORDS[index % len(WORDS)], sha256_of(index), ("model",)), others))
    for index in range(RUNS):
        planned.id = f"20260101-{index:06}-demo-0000"
        planned.save("completed")
    return len(planned.stages)


def _artifact(store: str, word: str, key: str, parts: tuple[str, ...]) -> None:
    home = join(store, word, key, "1")
    files = {part: write_bytes(join(home, part, "file"), f"{word} {key}".encode()) for part in parts}
    made = Manifest(
        word=word,
        key=key,
        attempt=1,
        version=1,
        config={},
        inputs={},
        sources={},
        parts={part: Part((replace(file, path="file"),)) for part, file in files.items()},
        records=[],
        counts=Counts(),
        seconds=1.0,
        peak_memory=0,
        code=code_hash(_stages()[word].function),
        commit="",
        packages={},
        machine={"device": "cpu"},
        made="2026-01-01T00:00:00+00:00",
        run="planted",
    )
    write_bytes(join(home, "manifest.json"), made.to_json())


@cache
def _stages() -> dict[str, Stage]:
    stages = [value for module in (curation, training) for value in vars(module).values() if isinstance(value, Stage)]
    return {stage.word: stage for stage in stages}


def _parts() -> tuple[str, ...]:
    """Every part that some stage reads: those that it declares, and by default the one of the argument's name."""
    declared = {part for stage in _stages().values() for parts in stage.takes.values() for part in parts}
    return tuple(sorted({*declared, "documents", "tokenizer", "model"}))


def cached_rows(folder: Path, store: str, stages: int) -> list[Row]:
    """The whole road and its first stage, cached, in a process that has run it once."""
    with serving(folder / "home") as api:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.orchestration_cached", store, str(folder)],
            env=os.environ | environment(folder / "home", api),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found = json.loads(done.stdout.splitlines()[-1])
    cached, spent, first = found["cached"], found["road"], found["first"]
    return [
        row("cached pipeline, after imports", cached["seconds"], None, "s", 3.0, less=True),
        row("cached pipeline, after imports, CPU", cached["cpu"], None, "s"),
        row("a stage", 1000 * (spent["seconds"] - first["seconds"]) / (stages - 1), None, "ms", 60, less=True),
        row("a stage, CPU", 1000 * (spent["cpu"] - first["cpu"]) / (stages - 1), None, "ms"),
    ]


def plan_rows(folder: Path, where: str, store: str, number: int) -> list[Row]:
    """`tokenmill plan` from the shell, the better of two."""
    command = [sys.executable, "-m", "flows.cli", "plan", "demo", "--json", "--store", store]
    command += [word for text in sets(folder) for word in ("--set", text)]
    walls: list[float] = []
    cpus: list[float] = []
    for _ in range(2):
        began, cpu = time.monotonic(), _of_ended_children()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        walls.append(time.monotonic() - began)
        cpus.append(_of_ended_children() - cpu)
    name = f"plan, store of {number:,} artifacts {where}"
    return [row(name, min(walls), None, "s", 3.0, less=True), row(f"{name}, CPU", min(cpus), None, "s")]


def _of_ended_children() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)  # not of moto, which lives
    return spent.ru_utime + spent.ru_stime


def at_once(folder: Path, store: str, database: str) -> list[Row]:
    """Cached pipelines as commands of their own, one and several at once, on a server with PostgreSQL."""
    rows: list[Row] = []
    with serving(folder / "home-postgresql", database) as api:
        for number in (1, AT_ONCE):
            began = time.monotonic()
            commands = [_command(folder, store, f"export-{index}") for index in range(number)]
            environ = os.environ | environment(folder / "home-postgresql", api, database)
            running = [subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL) for command in commands]
            if any(process.wait() for process in running):
                raise SystemExit("a pipeline failed")
            rows.append(row(f"cached pipelines at once on PostgreSQL: {number}", time.monotonic() - began, None, "s"))
    return rows


def _command(folder: Path, store: str, export: str) -> list[str]:
    overlaid = [*sets(folder), f"run.export={folder / export}"]
    words = [word for text in overlaid for word in ("--set", text)]
    return [sys.executable, "-m", "flows.cli", "run", "demo", "--store", store, *words]


@contextmanager
def s3() -> Generator[str]:
    """A bucket of moto's server on loopback, its address in the environment."""
    import boto3

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address,
    }
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _wait_for(f"{address}/moto-api/data.json")
            name = f"bench-{uuid.uuid4().hex[:12]}"
            boto3.client("s3", endpoint_url=address).create_bucket(Bucket=name)
            yield f"s3://{name}/store"
        finally:
            server.terminate()


def _wait_for(address: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
