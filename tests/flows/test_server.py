"""Who can reach our Prefect server: nobody outside this machine, and with a password only who has it."""

import base64
import json
import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from data_curation.settings import ConfigError
from flows.server import check_host, environment, serving

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org"])
def test_other_addresses_need_a_password(host: str, monkeypatch: pytest.MonkeyPatch):
    """Any address but loopback is refused until PREFECT_SERVER_API_AUTH_STRING is set."""
    monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING", raising=False)
    with pytest.raises(ConfigError, match="PREFECT_SERVER_API_AUTH_STRING"):
        check_host(host)
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "me:password")
    check_host(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_needs_none(host: str, monkeypatch: pytest.MonkeyPatch):
    """Loopback is reached from this machine only."""
    monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING", raising=False)
    check_host(host)


def test_the_command_refuses_before_it_starts_anything(tmp_path: Path):
    """`tokenmill ui --host 0.0.0.0` ends with exit code 2 and one line, and no server was started."""
    command = [sys.executable, "-m", "flows.cli", "ui", "--host", "0.0.0.0", "--set", f"run.home={tmp_path}/home"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("tokenmill: --host 0.0.0.0: others could reach it")
    assert not (tmp_path / "home").exists()


def test_a_server_with_a_password_answers_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """401 without the password, an answer with it, at another loopback address too; scripts of other pages get none."""
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "me:a-password")
    with serving(tmp_path, host="127.0.0.2") as api:
        assert api.startswith("http://127.0.0.2:")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            _ask(api, {})
        token = base64.b64encode(b"me:a-password").decode()
        version, headers = _ask(api, {"Authorization": f"Basic {token}", "Origin": "http://elsewhere.example"})
        assert version and "Access-Control-Allow-Origin" not in headers
    assert b"a-password" not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_homes_that_start_at_once_have_a_server_each(tmp_path: Path):
    """Three commands of three homes in the same second get three addresses, each of the server that they started."""
    code = "import sys; from pathlib import Path; from flows.server import serving\n"
    code += "with serving(Path(sys.argv[1])) as api: print(api, flush=True); sys.stdin.read()"
    commands = [[sys.executable, "-c", code, str(tmp_path / str(number))] for number in range(3)]
    users = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for command in commands
    ]
    said = [user.stdout.readline().strip() for user in users if user.stdout is not None]
    homes = [_get(api, "admin/settings")["home"] for api in said]
    assert homes == [str(tmp_path / str(number) / "prefect") for number in range(3)] and len(set(said)) == 3
    for user in users:
        user.communicate()
        assert user.returncode == 0


def test_a_port_that_is_taken_is_refused(tmp_path: Path):
    """A port that another server has is a ConfigError at once, and nothing was started."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port {port}: no free port"), serving(tmp_path, port=port):
            pass
    with pytest.raises(ConfigError, match="--port 70000: no free port"), serving(tmp_path, port=70000):
        pass
    assert not (tmp_path / "server" / "log.txt").exists()


def test_a_server_that_dies_in_the_middle_of_a_run_loses_nothing(tmp_path: Path):
    """kill -9 of the server while a stage works: it comes back, the run completes, and both its stages are there."""
    places = {name: str(tmp_path / name) for name in ("store", "export", "home", "sources")}
    tasks = {"train": 20, "dev": 5, "test": 5}
    sources = [{"name": "pages", "kind": "html", "path": str(tmp_path / "pages")}]
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "page.html").write_text(
        f"<html><body><main><p>{'Words of a page. ' * 50}</p></main></body></html>"
    )
    config = {"dialogues": {"tasks": tasks}, "extract": {"sources": sources}, "run": places}
    preset = tmp_path / "small.yaml"
    preset.write_text(json.dumps(config))
    with serving(tmp_path / "home") as api:
        command = [sys.executable, "-m", "flows.cli", "run", str(preset), "--until", "extract"]
        environ = os.environ | environment(tmp_path / "home", api)
        with subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.DEVNULL) as run:
            while not list((tmp_path / "store").glob("dialogues/*/1/lease.json")):
                assert run.poll() is None
                threading.Event().wait(0.05)
            state = tmp_path / "home" / "server" / "server.json"
            for process in psutil.Process(json.loads(state.read_text())["pid"]).children(recursive=True):
                process.kill()
            while "api" in json.loads(state.read_text()):  # nobody is sent there: another server could take the port
                threading.Event().wait(0.05)
            assert run.wait(300) == 0
        assert [one["state_name"] for one in _post(api, "flow_runs/filter")] == ["Completed"]
        found = {one["name"]: one["state_name"] for one in _post(api, "task_runs/filter")}
        assert found == {"dialogues": "Made", "sources-web": "Listed", "extract": "Made"}


def _post(api: str, path: str) -> list[dict[str, Any]]:
    request = urllib.request.Request(f"{api}/{path}", b"{}", {"content-type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        return json.load(answer)


def _get(api: str, path: str) -> Any:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{api}/{path}") as answer:
        return json.load(answer)


def _ask(api: str, headers: dict[str, str]) -> tuple[str, dict[str, str]]:
    request = urllib.request.Request(f"{api}/admin/version", headers=headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        return json.load(answer), dict(answer.headers)
