"""What a person sees in the Prefect UI, in a real browser; each screenshot lies in out/screens/."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from playwright.sync_api import BrowserContext, Page, expect

from tests.flows.served import tokenmill_ui
from tests.system.conftest import ROOT, SCREENS

TEXT = 60_000


@pytest.fixture(scope="module")
def served(preset: Path) -> Iterator[tuple[int, str]]:
    """Process and address of a `tokenmill ui` whose server has seen the road run and then one stage refreshed."""
    home = Path(yaml.safe_load(preset.read_text())["run"]["home"])
    with tokenmill_ui(home) as (process, api):
        for words in ([], ["--refresh", "dedup"]):
            command = [sys.executable, "-m", "flows.cli", "run", str(preset), "--until", "pretrain", *words]
            done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PREFECT_API_URL": api}, capture_output=True)
            assert done.returncode == 0, done.stderr.decode()
        yield process.pid, api.removesuffix("/api")


@pytest.fixture(scope="module")
def site(served: tuple[int, str]) -> str:
    """The address alone."""
    return served[1]


@pytest.fixture
def page(browser: BrowserContext) -> Iterator[Page]:
    """A new tab."""
    tab = browser.new_page()
    yield tab
    tab.close()


def _seen(page: Page, name: str, *texts: str | re.Pattern[str]) -> None:
    """Every text is visible; the screenshot is kept."""
    for text in texts:
        expect(page.get_by_text(text).filter(visible=True).first).to_be_visible(timeout=TEXT)
    page.wait_for_load_state("networkidle")  # the graph is drawn last
    page.screenshot(path=SCREENS / f"{name}.png", full_page=True)


def _ask(site: str, path: str, **query: Any) -> Any:
    body = json.dumps(query).encode()
    request = urllib.request.Request(f"{site}/api/{path}", body, {"content-type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        return json.load(answer)


def _newest(site: str) -> str:
    ended = {"state": {"type": {"any_": ["COMPLETED"]}}}
    return str(_ask(site, "flow_runs/filter", sort="END_TIME_DESC", limit=1, flow_runs=ended)[0]["id"])


def _form(page: Page, site: str, name: str) -> None:
    found = next(one for one in _ask(site, "deployments/filter") if one["name"] == name)
    page.goto(f"{site}/v2/deployments/deployment/{found['id']}/run")


def test_the_printed_address_leads_to_runs_with_names_that_help(page: Page, site: str):
    """The list of runs names preset and date."""
    page.goto(site)
    page.get_by_role("link", name="Runs", exact=True).click()
    _seen(page, "runs", re.compile(r"small-20\d\d-\d\d-\d\d-\d{6}"), "pipeline")


def test_a_run_shows_its_stages_and_tells_cached_ones_apart(page: Page, site: str):
    """Log and task list have every stage by its word; what was made says why, the rest is Cached."""
    page.goto(f"{site}/v2/runs/flow-run/{_newest(site)}")
    _seen(page, "run", "dedup: refresh was asked for", re.compile("8 stages, 3 cached; code "))
    page.get_by_role("tab", name="Task Runs").click()
    _seen(page, "run-tasks", "pretrain-64", "Cached", "Made")
    graph = _graph(site)
    assert graph["clean"] == {"extract"} and graph["pretrain-64"] == {"shard", "tokenizer"}


def _graph(site: str) -> dict[str, set[str]]:
    """Stage -> the stages from which the graph draws arrows to it (the canvas has no text to ask for)."""
    with urllib.request.urlopen(f"{site}/api/flow_runs/{_newest(site)}/graph-v2") as answer:
        nodes = {one["id"]: one for _, one in json.load(answer)["nodes"]}
    return {one["label"]: {nodes[parent["id"]]["label"] for parent in one["parents"]} for one in nodes.values()}


def test_every_stage_has_a_page(page: Page, site: str):
    """Why it ran, counts, the funnel with the planted copies, inputs and outputs with digests; plots of a training."""
    page.goto(f"{site}/v2/artifacts/key/dedup")
    _seen(page, "stage-dedup-history", "dedup")
    page.goto(_page_of(site, "dedup"))
    _seen(page, "stage-dedup", "refresh was asked for", "In and out", "equal-text 8", "Outputs", "read from")
    page.goto(_page_of(site, "pretrain-64"))
    plots = page.locator("main img, article img, img[src^='data:image/svg']")
    expect(plots.first).to_be_visible(timeout=TEXT)
    assert plots.first.evaluate("image => image.naturalWidth") > 100
    _seen(page, "stage-pretrain", "never made", "tokens_per_second", "shards")


def _page_of(site: str, key: str) -> str:
    found = next(one for one in _ask(site, "artifacts/latest/filter") if one["key"] == key)
    return f"{site}/v2/artifacts/artifact/{found['latest_id']}"


def test_the_summary_has_planned_against_actual_and_leads_to_the_pages(page: Page, site: str):
    """States, seconds, what was planned, the report's path; a click on a stage leads to its page."""
    page.goto(_page_of(site, "run-summary"))
    _seen(page, "run-summary", "small: 1 made, 7 cached", "planned seconds", re.compile(r"report\.html"))
    page.get_by_role("link", name="dedup", exact=True).click()
    page.wait_for_url(re.compile("artifacts/key/dedup"))


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.usefixtures("served")
def test_the_report_fits_a_desk_and_a_pocket(page: Page, preset: Path, width: int):
    """The file opens by itself, with its plots; no part of it is wider than the window: tables scroll in their box."""
    report = Path(yaml.safe_load(preset.read_text())["run"]["export"], "report.html")
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(report.as_uri())
    _seen(page, f"report-{width}", "From raw pages to documents", "Training loss, phase of 64 tokens")
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_form_of_the_pipeline_offers_presets_and_stages(page: Page, site: str):
    """preset, set, refresh and until, each with its help; stages are chosen from a list."""
    _form(page, site, "pipeline")
    helps = ("What to run: a file of configs/.", "Stages to make again in a new attempt")
    _seen(page, "form-pipeline", *helps, "The last stage to run; empty runs the whole road.")


def test_a_stage_is_made_again_from_its_form(page: Page, site: str, preset: Path):
    """The chosen stage's own settings with help and bounds; what is submitted runs, with what was filled in."""
    _form(page, site, "stage")
    page.get_by_text("Select", exact=True).first.click()
    page.get_by_role("option", name="dialogues", exact=True).click()
    page.get_by_role("tab", name="dedup").click()
    _seen(page, "form-stage-dedup", "Bands of the MinHash signature", "At least 1, at most 100. Default 14.")
    page.get_by_role("tab", name="dialogues").click()
    page.get_by_label("train").fill("25")
    places = yaml.safe_load(preset.read_text())["run"]
    for text in ["dialogues.sources=[]", *(f"run.{name}={places[name]}" for name in ("store", "export"))]:
        page.get_by_role("button", name="Add item").last.click()
        page.get_by_role("textbox").last.fill(text)
    _seen(page, "form-stage", "Whatever stays empty is as in the preset.", "Tasks to learn from.")
    page.get_by_role("button", name="Submit").click()
    page.wait_for_url(re.compile("tab=Runs"))
    run = _ended(page, site, "stage")
    assert (run["state_name"], run["parameters"]["curation"]) == ("Completed", {"tasks": {"train": 25}})
    assert run["name"].startswith("dialogues-demo-")


def test_retry_goes_on_where_a_failed_run_stopped(page: Page, served: tuple[int, str], preset: Path, tmp_path: Path):
    """A stage's process is killed and the run fails; Retry on its page finds the stages before it cached."""
    pid, site = served
    pages = yaml.safe_load(preset.read_text())["extract"]["sources"][0]["path"]
    overlaid = [f"run.store={tmp_path}/store", f"run.export={tmp_path}/export", "run.retries=0"]
    overlaid += ["dialogues.sources=[]", "dialogues.tasks={train: 20, dev: 5, test: 5}"]
    overlaid += [f"extract.sources=[{{name: pages, kind: html, path: {pages}}}]"]
    curate = next(one for one in _ask(site, "deployments/filter") if one["name"] == "curate")
    parameters = {"preset": "demo", "until": "clean", "set": overlaid}
    run = _ask(site, f"deployments/{curate['id']}/create_flow_run", parameters=parameters)
    while not list(tmp_path.glob("store/clean/*/1/lease.json")):
        page.wait_for_timeout(50)
    for process in psutil.Process(pid).children(recursive=True):
        if "tasks.child" in process.cmdline():
            process.kill()
    assert _ended(page, site, "curate")["state_name"] == "Failed"
    page.goto(f"{site}/v2/runs/flow-run/{run['id']}")
    _seen(page, "run-failed", "Failed", re.compile("clean: its process ended by signal 9"))
    page.get_by_role("button", name="Open menu").click()
    page.get_by_role("menuitem", name="Retry").click()
    page.get_by_role("button", name="Retry").click()
    while _ended(page, site, "curate")["run_count"] < 2:
        page.wait_for_timeout(500)
    assert _ended(page, site, "curate")["state_name"] == "Completed"
    report = json.loads((tmp_path / "export" / "report.json").read_text())
    states = {stage["name"]: stage["state"] for stage in report["stages"]}
    assert states == {"dialogues": "cached", "extract": "cached", "clean": "made"}


def _ended(page: Page, site: str, deployment: str) -> Any:
    """The run of the deployment, as soon as it has ended."""
    for _ in range(600):
        found = _ask(site, "flow_runs/filter", deployments={"name": {"any_": [deployment]}})
        if found and found[0]["state_type"] in ("COMPLETED", "FAILED", "CRASHED"):
            return found[0]
        page.wait_for_timeout(500)
    raise AssertionError(f"no run of the deployment {deployment} has ended")
