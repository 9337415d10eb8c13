"""Notifications reach a real webhook on loopback; automations are made once, changed and removed."""

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from prefect import flow, tags
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client

from data_curation.settings import ConfigError
from flows.notify import TOLD, automate
from tests.flows.served import ROOT

Received = Queue[dict[str, Any]]


@pytest.fixture
def webhook(prefect_api: str) -> Iterator[Received]:
    """What is posted to the notification block custom-webhook/tests."""
    received: Received = Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
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


def _heard(webhook: Received, run: str) -> dict[str, Any]:
    """The first message of a run; the server may still tell of those of other tests, or again of one."""
    others: list[dict[str, Any]] = []
    while run not in (one := webhook.get(timeout=120))["body"]:
        others.append(one)
    for other in others:
        webhook.put(other)
    return one


def test_the_end_of_a_run_is_told_once(webhook: Received):
    """Failure and success reach the webhook with the run's name and why; automations made twice tell once."""
    for _ in range(2):
        automate(["custom-webhook/tests"])

    def go(fails: bool) -> None:
        if fails:
            raise RuntimeError("dedup: bands are missing")

    with tags("tokenmill"):
        flow(name="pipeline", flow_run_name="good-one")(go)(False)
        with pytest.raises(RuntimeError):
            flow(name="pipeline", flow_run_name="bad-one")(go)(True)
    good, bad = _heard(webhook, "good-one"), _heard(webhook, "bad-one")
    assert sorted(one["subject"] for one in (good, bad)) == sorted(TOLD) and "failed" in bad["subject"]
    assert "good-one (pipeline) ended as Completed" in good["body"] and "/runs/flow-run/" in good["body"]
    assert "bands are missing" in bad["body"]
    with tags("tokenmill"):
        flow(name="pipeline", flow_run_name="last-one")(go)(False)
    last = _heard(webhook, "last-one")
    # Prefect delivers at least once, so a message may come again; of these runs no other one comes.
    rest = [one for one in (webhook.get() for _ in range(webhook.qsize())) if "-one (pipeline)" in one["body"]]
    assert all(one in (good, bad, last) for one in rest), rest
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
