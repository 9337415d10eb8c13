"""Who may import whom, and what must never be loaded to plan or to find everything cached."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "trl", "datatrove", "datasets", "matplotlib", "sklearn", "spacy")
ALLOWED = {
    "data_curation": {"data_curation"},
    "training": {"training", "data_curation"},
    "tasks": {"tasks", "training", "data_curation"},
    "flows": {"flows", "tasks", "training", "data_curation"},
}
PREFECT = {"tasks/task.py", "tasks/stage.py", "tasks/show.py"}
SERVERLESS = ["plan demo --json", "--help", "runs", "show", "verify", "prune", "whatif clean.gopher=0"]
# A bare training image holds these files of data_curation and nothing else of it.
TRAINING_TAKES = {
    "settings", "files", "artifact", "counts", "place", "shards", "shard_index", "documents",
    "checkers", "template_trial", "tokenizer_files",
}  # fmt: skip


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_point_down(folder: str):
    """flows -> tasks -> {training, data_curation}, never up."""
    for path in (ROOT / folder).rglob("*.py"):
        ours = {name.split(".")[0] for name in imports(path)} & set(ALLOWED)
        assert ours <= ALLOWED[folder], path


def test_training_takes_little_from_curation():
    """training/ takes only the shard format, settings, files, places and tables from data_curation."""
    for path in (ROOT / "training").rglob("*.py"):
        taken = {name.split(".")[1] for name in imports(path) if name.startswith("data_curation.")}
        assert taken <= TRAINING_TAKES, path


def test_prefect_is_named_where_it_belongs():
    """Prefect appears in flows/ and three files of tasks/ only; the domain folders and the store run without it."""
    for path in (path for folder in ALLOWED if folder != "flows" for path in (ROOT / folder).rglob("*.py")):
        if path.relative_to(ROOT).as_posix() not in PREFECT:
            assert not any(name.split(".")[0] == "prefect" for name in imports(path)), path


@pytest.mark.parametrize("command", SERVERLESS)
def test_what_needs_no_server_loads_nothing_heavy(command: str, tmp_path: Path):
    """What only looks at a store imports none of torch, trl, datatrove and their like, and no Prefect."""
    (tmp_path / "store").mkdir()
    code = (
        "import sys; from flows.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        f"print('LOADED', [name for name in {(*HEAVY, 'prefect')!r} if name in sys.modules])"
    )
    options = ["--store", str(tmp_path / "store")] if command != "--help" else []
    done = subprocess.run(
        [sys.executable, "-c", code, *command.split(), *options], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "LOADED []", done.stderr


def test_stage_functions_exist_with_the_declared_inputs():
    """Every stage names a function that takes `config`, its inputs and `place`, and its file holds a settings class."""
    words = json.loads(
        subprocess.run(
            [sys.executable, "-c", _LIST_STAGES], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.splitlines()[-1]
    )
    assert len(words) == 16
    for function in words:
        module, name = function.split(":")
        tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
        found = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
        arguments = [argument.arg for argument in found.args.args]
        assert {"config", "place"} <= set(arguments), function


_LIST_STAGES = """
import json, tasks.curation, tasks.training
from tasks.stage import Stage
found = [value for module in (tasks.curation, tasks.training) for value in vars(module).values()]
print(json.dumps([value.function for value in found if isinstance(value, Stage)]))
"""
