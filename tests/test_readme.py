"""The documentation is what runs: commands in README and docs exist, and generated pages are fresh."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from flows.cli import _parser as parser
from flows.docs import PAGE, page

ROOT = Path(__file__).parent.parent
DOCUMENTS = ["README.md", "docs/operating.md", "CONTRIBUTING.md"]


def commands(word: str) -> list[str]:
    """Every indented command line of the documents that starts with a word, without its comment."""
    text = "\n".join((ROOT / name).read_text() for name in DOCUMENTS)
    return [line.split("#")[0].strip() for line in re.findall(rf"^    ({word} .*)$", text, re.M)]


def test_readme_is_short():
    """A newcomer finishes the README: 150 lines at most."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_tokenmill_commands_parse():
    """Every documented `tokenmill` line is accepted by the command's own parser."""
    lines = commands("tokenmill")
    assert len(lines) >= 10
    for line in lines:
        parser().parse_args(shlex.split(line)[1:])


def test_every_command_is_documented():
    """Every command of `tokenmill` stands in README or docs."""
    choices = next(action.choices for action in parser()._actions if action.choices)
    documented = {shlex.split(line)[1] for line in commands("tokenmill")}
    assert set(choices) <= documented


def test_make_targets_exist():
    """Every documented `make` target is in the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    for line in commands("make"):
        assert set(line.split()[1:]) <= targets, line


def test_linked_files_exist():
    """Every relative link of the documents leads to a file."""
    for name in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / name).read_text()):
            assert (ROOT / name).parent.joinpath(target).exists(), f"{name}: {target}"


def test_settings_page_is_fresh():
    """docs/stages.md is what `python -m flows.docs` writes."""
    assert PAGE.read_text() == page()


@pytest.mark.parametrize("name", ["pipeline", "curate", "increment", "pretrain", "align", "stage"])
def test_deployments_name_real_flows(name: str):
    """Every deployment's entry point exists and takes the parameters it is given."""
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    deployment = next(entry for entry in deployments if entry["name"] == name)
    path, function = deployment["entrypoint"].split(":")
    flow = getattr(__import__(path.removesuffix(".py").replace("/", "."), fromlist=["x"]), function)
    assert set(deployment["parameters"]) <= set(flow.parameters.properties)
