"""One Prefect server for the whole test run, in a folder of its own; nothing reaches beyond loopback."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HOME = Path(tempfile.mkdtemp(prefix="tokenmill-tests-"))

from flows.server import environment, serving  # noqa: E402

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
        del os.environ["PREFECT_API_URL"]
