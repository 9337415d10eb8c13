"""Stages that want a GPU take turns: Prefect's limit of the host is made once, held, waited for and given back."""

import contextvars
import threading
from pathlib import Path
from socket import gethostname
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency

from data_curation.place import Resources
from tasks import show
from tasks.run import Run, RunConfig
from tasks.stage import stage
from tasks.store import Store
from tasks.task import turn

LIMIT = f"gpu-{gethostname()}"


@pytest.fixture
def run(prefect_api: str, tmp_path: Path) -> Run:
    """A run whose stages compute on a GPU."""
    settings = RunConfig(store=str(tmp_path), resources=Resources(device="cuda"))
    return Run("toy", {}, settings, Store(str(tmp_path)), "make")


def test_a_second_stage_waits_until_the_first_gives_the_gpu_back(run: Run, monkeypatch: pytest.MonkeyPatch):
    """With one slot the second waits and says so; it goes on when the first has ended."""
    waits, done = threading.Event(), threading.Event()
    sft = stage("training.instruct:instruct", version=1)
    with turn(run, sft, "instruct"), get_client(sync_client=True) as client:
        assert client.read_global_concurrency_limit_by_name(LIMIT).active_slots == 1

    class Listener(show.logging.Handler):
        def emit(self, record: Any) -> None:
            if "waits for 1 of Prefect's concurrency limit" in record.getMessage():
                waits.set()

    def second() -> None:
        with turn(run, sft, "instruct"):
            done.set()

    listener = Listener()
    show.log.addHandler(listener)
    show.log.setLevel("INFO")
    try:
        with concurrency(LIMIT, 1):
            thread = threading.Thread(target=contextvars.copy_context().run, args=(second,))  # with the API's address
            thread.start()
            assert waits.wait(120) and not done.is_set()
        assert done.wait(120)
        thread.join()
    finally:
        show.log.removeHandler(listener)


def test_what_needs_no_gpu_waits_for_none(run: Run):
    """Curation, and training on a CPU, go on while the only GPU is taken."""
    with turn(run, stage("training.instruct:instruct", version=1), "instruct"):
        with turn(run, stage("data_curation.dedup:dedup", version=1), "dedup"):
            pass
        run.settings = RunConfig(resources=Resources(device="cpu"))
        with turn(run, stage("training.instruct:instruct", version=1), "instruct"):
            pass


def test_a_stage_takes_a_slot_for_each_gpu_of_its_own(run: Run):
    """Two ranks that train take two slots of three, the ranks' answers to held-out prompts come from one."""
    run.settings = RunConfig(resources=Resources(device="cuda", ranks=2))
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(LIMIT, 3)
        for word, slots in (("instruct", 2), ("reinforce", 2), ("evaluate", 1)):
            with turn(run, stage(f"training.{word}:{word}", version=1), word):
                assert client.read_global_concurrency_limit_by_name(LIMIT).active_slots == slots
        client.upsert_global_concurrency_limit_by_name(LIMIT, 1)
