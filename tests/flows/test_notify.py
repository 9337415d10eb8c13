"""Notifications reach a real webhook on loopback; automations are made once, changed and removed."""

import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, tags
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client

from data_curation.settings import ConfigError
from flows.notify import TOLD, automate
from tests.flows.served import ROOT

Message = dict[str, Any]
Received = list[Message]


@pytest.fixture
def webhook(prefect_api: str) -> Iterator[Received]:
    """What is posted to the notification block custom-webhook/tests."""
    received: Received = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        text = {"subject": "{{subject}}", "body": "{{body}}"}
        CustomWebhookNotificationBlock(name="tests", url=url, json_data=text).save("tests", overwrite=True)
        yield received
        automate([])
        server.shutdown()


def _names() -> list[str]:
    with get_client(sync_client=True) as client:
        return sorted(automation.name for automation in client.read_automations())


def _end(name: str, fails: bool) -> None:
    """A run of that name that succeeds or fails."""

    def go() -> None:
        if fails:
            raise RuntimeError("dedup: bands are missing")

    with tags("tokenmill"), pytest.raises(RuntimeError) if fails else nullcontext():
        flow(name="pipeline", flow_run_name=name)(go)()


def _told(webhook: Received, name: str, fails: bool = False) -> Message:
    """The first message about the end of a run of that name.

    The server drops an end that it sees before a new automation is loaded, and keeps one for 15 minutes that overtook
    its run's start, which runs of milliseconds provoke (prefect.server.events.ordering): then another run is ended.
    """
    for _ in range(4):
        _end(name, fails)
        deadline = time.monotonic() + 45
        while time.monotonic() < deadline:
            for one in list(webhook):
                if one["body"].startswith(f"{name} (pipeline)"):
                    return one
            time.sleep(0.1)
    raise AssertionError(f"the webhook heard of no run {name}, but of {webhook}")


def test_the_end_of_a_run_is_told_once(webhook: Received):
    """Failure and success reach the webhook with the run's name and why; automations made twice tell once."""
    for _ in range(2):
        automate(["custom-webhook/tests"])
    good, bad = _told(webhook, "good-one"), _told(webhook, "bad-one", fails=True)
    assert sorted(one["subject"] for one in (good, bad)) == sorted(TOLD) and "failed" in bad["subject"]
    assert "good-one (pipeline) ended as Completed" in good["body"] and "/runs/flow-run/" in good["body"]
    assert "bands are missing" in bad["body"]
    last = _told(webhook, "last-one")
    # Prefect delivers at least once, so a message may come again; no run is told of in two ways.
    kinds = {(one["body"].split()[0], one["subject"]) for one in webhook if "-one (pipeline)" in one["body"]}
    assert kinds == {("good-one", good["subject"]), ("bad-one", bad["subject"]), ("last-one", last["subject"])}
    assert _names() == sorted([*TOLD, "Tokenmill: dead runs are crashed"])


def test_automations_are_changed_and_removed(webhook: Received):
    """`notify` with other blocks replaces, without any removes who is told; dead runs are looked for in any case."""
    automate(["custom-webhook/tests"])
    assert _names() == sorted([*TOLD, "Tokenmill: dead runs are crashed"])
    automate(None)
    assert len(_names()) == 3
    automate([])
    assert _names() == ["Tokenmill: dead runs are crashed"]
    with pytest.raises(ConfigError, match="slack-webhook/nobody: the server has no such block"):
        automate(["slack-webhook/nobody"])


def test_the_command_needs_a_server(tmp_path: Path):
    """`tokenmill notify` without a server of run.home and without PREFECT_API_URL says what to do, exit code 2."""
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    command = [sys.executable, "-m", "flows.cli", "notify", "slack-webhook/team", "--set", f"run.home={tmp_path}/home"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "no server runs for" in done.stderr and "tokenmill ui" in done.stderr
