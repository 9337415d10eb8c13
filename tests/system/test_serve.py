"""The published folder behind an OpenAI-compatible server, as the README says."""

import json
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest
from openai import BadRequestError, OpenAI

from tests.system.conftest import ROOT


@pytest.fixture(scope="module")
def model(preset: Path) -> str:
    """The folder that a whole small road publishes."""
    wider = [
        "pretrain.phases=[{seq_len: 1024, tokens: 20480, learning_rate: 1.0e-3}]", "pretrain.tokens_per_step=1024",
        "pairs.chosen=sample-or-reference",
        "reinforce.steps=2", "reinforce.prompts_per_step=8", "reinforce.max_new_tokens=16",
    ]  # fmt: skip
    command = [sys.executable, "-m", "flows.cli", "run", str(preset), "--json", *[f"--set={one}" for one in wider]]
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])["model"]


@pytest.fixture(scope="module")
def client(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    """OpenAI's own client of a `transformers serve` on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    said = tmp_path_factory.mktemp("serve") / "log"
    command = [Path(sys.executable).parent / "transformers", "serve", "--port", str(port), model]
    with said.open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | {"HF_HUB_OFFLINE": "1"}, stdout=log, stderr=log)
    try:
        while not _healthy(port):
            assert process.poll() is None, said.read_text()
            threading.Event().wait(0.2)
        yield OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
    finally:
        process.terminate()
        process.wait(60)


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
            return answer.status == 200
    except (URLError, ConnectionError):
        return False


def test_a_client_of_openai_gets_an_answer_whole_and_in_parts(client: OpenAI, model: str) -> None:
    """The template of the folder is applied, the answer counts its tokens, and a stream gives the same text."""
    messages = [{"role": "user", "content": "Is 7 even or odd?"}]
    asked = {"model": model, "messages": messages, "max_tokens": 12, "temperature": 0.0}
    whole = client.chat.completions.create(**asked)
    assert whole.choices[0].finish_reason in ("stop", "length")
    assert whole.usage is not None and 0 < whole.usage.completion_tokens <= 12 < whole.usage.prompt_tokens + 12
    parts = client.chat.completions.create(**asked, stream=True)
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert text == whole.choices[0].message.content


def test_another_model_is_refused(client: OpenAI) -> None:
    """The server has this one."""
    with pytest.raises(BadRequestError):
        client.chat.completions.create(model="another", messages=[{"role": "user", "content": "Hello!"}])
