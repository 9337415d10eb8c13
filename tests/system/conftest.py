"""A browser, a database and a road of pages for the system tests."""

import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import BrowserContext, sync_playwright

from tests.data_curation.prose import paragraphs

CHROMIUM = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PAGES = 80
ROOT = Path(__file__).parent.parent.parent
SCREENS = ROOT / "out" / "screens"


@pytest.fixture(scope="module")
def browser() -> Iterator[BrowserContext]:
    """Chromium with a new profile; while it is open, its driver's event loop runs in this thread."""
    with tempfile.TemporaryDirectory() as profile, sync_playwright() as playwright:
        view: Any = {"width": 1400, "height": 1000}
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path="/usr/bin/chromium", args=CHROMIUM, viewport=view
        )
        context.set_default_timeout(60_000)
        SCREENS.mkdir(parents=True, exist_ok=True)
        yield context
        context.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of an empty PostgreSQL database on loopback, in a folder of its own; the server runs as user postgres."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        Path(folder).chmod(0o777)
        as_postgres = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        made = [*as_postgres, programs / "initdb", "-D", data, "-U", "tokenmill", "--auth=trust", "-E", "UTF8"]
        subprocess.run(made, check=True, capture_output=True)
        options = ["-c", "listen_addresses=127.0.0.1", "-p", str(port), "-k", folder, "-c", "fsync=off"]
        with subprocess.Popen(
            [*as_postgres, programs / "postgres", "-D", data, *options], stderr=subprocess.PIPE
        ) as it:
            assert it.stderr is not None
            for line in it.stderr:
                if b"ready to accept connections" in line:
                    break
            threading.Thread(target=it.stderr.read, daemon=True).start()
            yield f"postgresql+asyncpg://tokenmill@127.0.0.1:{port}/postgres"
            it.terminate()


@pytest.fixture(scope="session")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a road of generated pages at the smallest scale, every tenth page a copy of the one before."""
    folder = tmp_path_factory.mktemp("road")
    (folder / "pages").mkdir()
    for number in range(PAGES):
        body = "".join(f"<p>{text}</p>" for text in paragraphs(number - (number % 10 == 9), count=8, length=5))
        page = f"<html><title>{number}</title><body><main>{body}</main></body></html>"
        (folder / "pages" / f"{number:03}.html").write_text(page)
    model = {"family": "llama", "hidden_size": 32, "layers": 2, "heads": 2, "kv_heads": 2, "intermediate_size": 64}
    phases = [{"seq_len": 64, "tokens": 10_240, "learning_rate": 1e-3}]
    config = {
        "dialogues": {"tasks": {"train": 30, "dev": 10, "test": 10}},
        "extract": {"sources": [{"name": "pages", "kind": "html", "path": str(folder / "pages")}]},
        "clean": {"languages": [{"code": "en"}]},
        "tokenizer": {"vocab_size": 400},
        "shard": {"heldout_fraction": 0.1, "tokens_per_shard": 20_000},
        "pretrain": {"model": model, "tokens_per_step": 512, "dtype": "float32", "phases": phases},
        "run": {name: str(folder / name) for name in ("store", "export", "home", "sources")}
        | {"resources": {"workers": 1, "threads": 1, "device": "cpu"}},
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(config))
    return path
