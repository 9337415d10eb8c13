"""Stages and listings of sources as Prefect tasks: retried, timed, shown on pages, in turns at the GPU."""

import logging
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from socket import gethostname
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.objects import State, TaskRun
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.states import Completed
from prefect.tasks import exponential_backoff

from data_curation.artifact import Artifact
from data_curation.settings import Settings, StageError, is_transient
from data_curation.sources.source import Source
from tasks.disk import check_disk
from tasks.estimate import gpus_of, on_gpu
from tasks.lease import STALE_SECONDS
from tasks.make import make
from tasks.page import metric_text, stage_page
from tasks.plan import disk
from tasks.run import RUN, Run, StageRecord
from tasks.secrets import cleaned
from tasks.show import say, show_page
from tasks.sources import fetch_sources
from tasks.stage import Stage
from tasks.store import Found
from tasks.why import code_warning, decide
from training.verdict import PASSED, UNMEASURED, outcome, stops


def stage_task(run: Run, name: str) -> Task[..., Any]:
    """The task of a stage of this run, called with the stage, its configuration, its name and inputs."""
    return task(name=name, task_run_name=name, **_policy(run))(_execute)


def listing_task(run: Run, name: str) -> Task[..., Any]:
    """The task that lists, and fetches where it must, external sources; called with its name and the sources."""
    return task(name=name, task_run_name=name, **_policy(run))(_list)


def _policy(run: Run) -> dict[str, Any]:
    """How Prefect retries a task of ours, and that it caches and pickles nothing."""
    return {
        "retries": run.settings.retries,
        "retry_delay_seconds": exponential_backoff(run.settings.retry_seconds),
        "retry_jitter_factor": 0.5,
        "retry_condition_fn": _transient,
        "persist_result": False,  # the store decides what is cached, and nothing is ever pickled
        "cache_policy": NO_CACHE,
    }


def _transient(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Retry only what another try may heal; a wrong configuration or damaged input fails at once."""
    try:
        state.result()
    except Exception as error:
        return is_transient(error)
    return False


def _execute(stage: Stage, config: Settings, name: str, inputs: Mapping[str, Any]) -> State[Artifact]:
    """Body of every stage's task: find it in the store or make it; the state's name says which."""
    run = RUN.get()
    run.stages = [record for record in run.stages if record.name != name]  # of a try that failed
    started = time.monotonic()
    record = StageRecord(name, stage.word, "failed", "")
    run.stages.append(record)
    try:
        narrowed = stage.narrow(inputs)
        decision = decide(run, stage.word, name, stage.version, config.identity(), narrowed)
        record.key, record.why = decision.key, decision.why
        found, made = decision.found, False
        if decision.why:
            say(f"{name}: {decision.why}")
            check_disk(run, name, disk([run.expected.get(name, {})]))
            with turn(run, stage, name):
                found, made = make(run, stage, config, name, narrowed, decision)
        _finish(run, stage, record, found, made)
    except BaseException as error:
        with suppress(Exception):  # a store that is away must not hide why the stage failed
            _save(run, record, started)
        if (harmless := cleaned(error)) is not None:
            raise harmless from None
        raise
    _save(run, record, started)
    assert found.manifest is not None
    artifact = found.manifest.artifact(name, found.home)
    if record.state == "cached":
        _enforce_gates(run, record)  # else a run that a gate has ended would pass it when it is started again
        return Completed(name="Cached", message=f"{name}: {found.home}", data=artifact)
    show_page(name, lambda: stage_page(record, run))
    for warning in found.manifest.counts.warnings:
        say(f"{name}: {warning}", logging.WARNING)
    _say_gates(record)
    _enforce_gates(run, record)
    return Completed(name="Made", message=f"{name}: {record.why}", data=artifact)


def _list(name: str, sources: Sequence[Source]) -> State[Any]:
    found, warnings = fetch_sources(RUN.get(), sources)
    for warning in warnings:
        say(warning, logging.WARNING)
    for item in found:
        size = sum(file.size for file in item.part("files").files)
        say(f"{name}: {item.name}: {len(item.part('files').files)} files, {size / 1e6:.1f} MB")
    return Completed(name="Listed", data=found)


@contextmanager
def turn(run: Run, stage: Stage, name: str) -> Generator[None]:
    """A slot for each GPU that the stage takes of Prefect's limit `gpu-HOST`, so that runs do not share a GPU.

    The first stage on a host makes the limit, with the number of GPUs there; people change it on the page Concurrency.
    """
    resources = run.resources(stage.word)
    if not (stage.function.startswith("training.") and on_gpu(resources)):
        yield
        return
    limit = f"gpu-{gethostname()}"
    slots = min(gpus_of(stage.word, resources), _slots(limit))
    with ExitStack() as held:
        # Leases end soon after `kill -9` of their holder.
        try:
            held.enter_context(concurrency(limit, slots, timeout_seconds=1, lease_duration=STALE_SECONDS))
        except TimeoutError:
            say(f"{name}: waits for {slots} of Prefect's concurrency limit {limit}: another run has it")
            held.enter_context(concurrency(limit, slots, lease_duration=STALE_SECONDS))
        yield


def _slots(limit: str) -> int:
    gpus = len(list(Path("/proc/driver/nvidia/gpus").glob("*"))) or 1
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
        try:
            return client.read_global_concurrency_limit_by_name(limit).limit
        except ObjectNotFound:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=limit, limit=gpus))
    return gpus


def _save(run: Run, record: StageRecord, started: float) -> None:
    record.seconds = round(time.monotonic() - started, 3)
    run.save("running")


def _finish(run: Run, stage: Stage, record: StageRecord, found: Found, made: bool) -> None:
    assert found.manifest is not None
    record.state = "made" if made else "cached"
    record.manifest, record.digest = found.manifest, found.manifest.digest
    record.attempt, record.uri = found.manifest.attempt, found.home
    if not made and (warning := code_warning(run, stage.word, record.name, stage.function, found)):
        record.warnings.append(warning)
        say(warning, logging.WARNING)


def _say_gates(record: StageRecord) -> None:
    """Every gate that did not pass, with what it measured."""
    assert record.manifest is not None
    for gate in record.manifest.counts.gates:
        found = outcome(gate)
        if found == UNMEASURED:
            say(f"{record.name}: gate not measured: {gate['gate']}", logging.WARNING)
        elif found != PASSED:
            text = f"{gate['gate']}: {metric_text(gate)} against {gate['against']}"
            say(f"{record.name}: gate {found}: {text}", logging.WARNING)


def _enforce_gates(run: Run, record: StageRecord) -> None:
    assert record.manifest is not None
    failed = [str(gate["gate"]) for gate in record.manifest.counts.gates if stops(gate)]
    if failed and run.settings.gates == "enforce":
        raise StageError(f"{record.name}: gate failed: {', '.join(failed)} (run.gates is enforce)")
