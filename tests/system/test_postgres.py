"""`tokenmill ui` on PostgreSQL: started twice it is the same, and runs go through it."""

import asyncio
from pathlib import Path

import yaml
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.flows.served import ROOT, tokenmill_ui

DEPLOYMENTS = [one["name"] for one in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]]


def test_ui_on_postgresql_is_the_same_after_a_restart(postgres: str, preset: Path, tmp_path: Path):
    """Deployments, pool and automation exist once after two starts; a run of the first is there in the second."""
    places = yaml.safe_load(preset.read_text())["run"]
    settings = ["dialogues.sources=[]", "dialogues.tasks.train=20", f"run.store={tmp_path}/store"]
    settings += [f"run.export={tmp_path}/export", f"run.home={places['home']}"]
    seen = []
    for _ in range(2):
        with (
            tokenmill_ui(tmp_path / "home", "--database", postgres) as (_, api),
            temporary_settings({PREFECT_API_URL: api}),
        ):
            seen.append(asyncio.run(_look(settings)))
    assert seen[0][:3] == seen[1][:3] == (sorted(DEPLOYMENTS), ["tokenmill"], ["Tokenmill: dead runs are crashed"])
    assert (seen[0][3], seen[1][3]) == (["Completed"], ["Completed"] * 2)
    assert not (tmp_path / "home" / "prefect.db").exists()


async def _look(settings: list[str]) -> tuple[list[str], list[str], list[str], list[str]]:
    """Run the deployment `curate` once; names of deployments, pools and automations, states of all its runs."""
    async with get_client() as client:
        deployment = await client.read_deployment_by_name("pipeline/curate")
        parameters = {"preset": "demo", "set": settings, "until": "dialogues"}
        run = await client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
        while not (await client.read_flow_run(run.id)).state.is_final():
            await asyncio.sleep(0.5)
        names = sorted(one.name for one in await client.read_deployments())
        pools = [one.name for one in await client.read_work_pools()]
        automations = [one.name for one in await client.read_automations()]
        runs = [one for one in await client.read_flow_runs() if one.deployment_id == deployment.id]
        return names, pools, automations, [str(one.state_name) for one in runs]
