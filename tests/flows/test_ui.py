"""`tokenmill ui`: server, pool, worker and deployments come up, a schedule really fires, nothing is left behind."""

import asyncio
import datetime
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.flows.served import LIMIT, tokenmill_ui

DEPLOYMENTS = {"pipeline", "curate", "increment", "pretrain", "align", "evaluate", "stage"}


@pytest.fixture
def ui(tmp_path: Path) -> Iterator[tuple[Any, str]]:
    """A running `tokenmill ui` with a home of its own: (process, API address)."""
    with tokenmill_ui(tmp_path / "home") as served:
        yield served


def test_ui_deploys_and_a_schedule_fires(ui: Any, tmp_path: Path):
    """All deployments exist; one with an interval schedule runs by itself to Completed; SIGTERM leaves nothing."""
    process, api = ui
    preset = tmp_path / "small.yaml"
    preset.write_text(
        "dialogues: {tasks: {train: 20, dev: 5, test: 5}}\n"
        f"run: {{store: {tmp_path / 'store'}, home: {tmp_path / 'home'}, export: {tmp_path / 'export'}}}\n"
    )
    with temporary_settings({PREFECT_API_URL: api}):
        assert asyncio.run(_schedule(str(preset))) == "Completed"
    assert json.loads((tmp_path / "export" / "report.json").read_text())["stages"][0]["state"] in ("made", "cached")
    below = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    _, alive = psutil.wait_procs(below, timeout=60)
    assert not alive


async def _schedule(preset: str) -> str:
    """Deploy `pipeline` once more with a schedule of seconds; the state of the first run that it brought about."""
    async with get_client() as client:
        found = {deployment.name: deployment for deployment in await client.read_deployments()}
        assert set(found) == DEPLOYMENTS
        (nightly,) = found["pipeline"].schedules
        assert (nightly.schedule.cron, nightly.schedule.timezone) == ("0 3 * * *", "UTC")
        for deployment in found.values():
            assert "tokenmill" in deployment.tags
            assert deployment.concurrency_options.collision_strategy == "ENQUEUE"
            assert deployment.global_concurrency_limit.limit == 1
        assert [one.name for one in await client.read_automations()] == ["Tokenmill: dead runs are crashed"]
        now = datetime.datetime.now(datetime.UTC)
        schedule = IntervalSchedule(interval=datetime.timedelta(seconds=20), anchor_date=now)
        like = found["curate"]
        made = await client.create_deployment(
            flow_id=like.flow_id,
            name="every-few-seconds",
            entrypoint=like.entrypoint,
            pull_steps=like.pull_steps,
            work_pool_name=like.work_pool_name,
            parameters={"preset": preset, "until": "dialogues"},
            schedules=[DeploymentScheduleCreate(schedule=schedule, active=True)],
        )
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            runs = await client.read_flow_runs(deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[made])))
            ended = [run for run in runs if run.state is not None and run.state.is_final()]
            if ended:
                assert ended[0].auto_scheduled
                return str(ended[0].state_name)
            await asyncio.sleep(0.5)
        return f"no scheduled run ended in {LIMIT} s: {[run.state_name for run in runs]}"
