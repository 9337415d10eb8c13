"""One Prefect server for the whole test run, in a folder of its own; nothing reaches beyond loopback."""

import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

# `make system` installs what those need.
collect_ignore = [] if importlib.util.find_spec("playwright") else ["system"]

HOME = Path(tempfile.mkdtemp(prefix="tokenmill-tests-"))

from flows.server import environment, flush, serving  # noqa: E402

# Prefect reads its settings when it is imported, which collecting the tests does.
os.environ.update(environment(HOME))
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[str]:
    """Address of a real Prefect server that this test run shares."""
    with serving(HOME) as api:
        os.environ["PREFECT_API_URL"] = api
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with temporary_settings({PREFECT_API_URL: api}):
            yield api
            flush()
        del os.environ["PREFECT_API_URL"]


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Address of an s3 server on loopback (moto), with credentials in the environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    before = dict(os.environ)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": address,
        }
        _wait_for(address)
        yield address
        server.terminate()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def bucket(s3_server: str) -> str:
    """A fresh bucket as an s3:// URI."""
    import boto3

    name = f"test-{uuid.uuid4().hex[:12]}"
    client = boto3.client("s3", endpoint_url=s3_server)
    client.create_bucket(Bucket=name)
    client.close()
    return f"s3://{name}/prefix"


def _wait_for(address: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"{address}/moto-api/data.json", timeout=5).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
