"""The `tokenmill` command: each function is one, with its options below."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.bounds import count, temperature
from flows.presets import presets

if TYPE_CHECKING:
    from flows.config import PipelineConfig
    from tasks.store import Store


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 done, 1 a stage failed, 2 the configuration is wrong, 128 + n ended by signal n."""
    asked = _parser().parse_args(arguments)
    from data_curation.settings import TokenmillError  # here and below, so that --help answers at once
    from flows.ending import failure

    try:
        return int(asked.command(asked))
    except (TokenmillError, KeyboardInterrupt) as error:
        return failure(error)


def run(asked: argparse.Namespace) -> int:
    """Run the road, or as much of it as was asked for."""
    from flows.start import start

    return start(asked, _sets(asked))


def plan(asked: argparse.Namespace) -> int:
    """Say what a run would do, and why; nothing is run and no server is needed."""
    from flows.planning import show_plan

    return show_plan(_config(asked), asked)


def ui(asked: argparse.Namespace) -> int:
    """Server, work pool, worker and deployments, until Ctrl-C."""
    from flows.ui import serve

    return serve(_config(asked), asked.database, asked.host, asked.port)


def notify(asked: argparse.Namespace) -> int:
    """Tell notification blocks of the Prefect server (Slack, e-mail, webhook) how runs of deployments end."""
    from flows.ui import notify

    return notify(_config(asked), asked.blocks)


def runs(asked: argparse.Namespace) -> int:
    """List the runs of a store, newest first, or mark some as kept."""
    from flows.keeping import runs

    return runs(_store(asked), asked)


def show(asked: argparse.Namespace) -> int:
    """Show one run, the newest by default: its stages with states and digests; places with --json."""
    from flows.keeping import show

    return show(_store(asked), asked)


def diff(asked: argparse.Namespace) -> int:
    """Two runs side by side: configuration, data, metrics and gates."""
    from flows.diff import diff

    return diff(_store(asked), asked)


def whatif(asked: argparse.Namespace) -> int:
    """Judge a run's documents again under other thresholds of `clean`, from stored scores; nothing is run."""
    from flows.whatif import whatif

    return whatif(_store(asked), asked)


def chat(asked: argparse.Namespace) -> int:
    """Talk with a model in the terminal: a line asked, an answer printed, until Ctrl-D."""
    from training.talk import decoded, talk

    say = (lambda _: None) if asked.json else print
    lines = decoded(sys.stdin.buffer)
    turns = talk(Path(asked.folder), lines, say, _note, asked.max_new_tokens, asked.temperature)
    if asked.json:
        print(json.dumps({"messages": turns}))
    return 0


def trace(asked: argparse.Namespace) -> int:
    """What a model was made of, what one of its steps read, or where a document went."""
    from flows.trace import trace

    return trace(_store(asked), asked)


def takedown(asked: argparse.Namespace) -> int:
    """Take documents out of a store: block them, make again what follows, remove what holds them; dry by default."""
    from flows.start import start
    from flows.takedown import takedown

    road = argparse.Namespace(preset=asked.preset, refresh=[], remake=[], accept=[], until=asked.until, json=False)
    return takedown(_config(asked), asked, lambda: start(road, _sets(asked)))


def verify(asked: argparse.Namespace) -> int:
    """Check that the store's current artifacts are whole; exit code 1 if one is not."""
    from flows.keeping import verify

    return verify(_store(asked), asked)


def prune(asked: argparse.Namespace) -> int:
    """Remove what no kept run reaches; without --apply only says what that is."""
    from flows.keeping import prune

    return prune(_store(asked), asked)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "tokenmill", description="Raw web pages to an aligned chat model.", allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (run, plan):
        sub = _add(commands, command)
        sub.add_argument("preset", help=f"{', '.join(presets())}, or a YAML file")
        _add_settings(sub)
        for option, what in (
            ("refresh", "make this stage again in a new attempt"),
            ("remake", "allow a damaged, costly stage to be made again"),
            ("accept", "record that a stage's old output is still right after a code change"),
        ):
            sub.add_argument(f"--{option}", action="append", default=[], metavar="STAGE", help=what)
        sub.add_argument("--until", metavar="STAGE", help="the last stage to run")
        if command is plan:
            words = "try it for a minute, training and curation, and count time and money with these speeds"
            sub.add_argument("--probe", action="store_true", help=words)
    sub = _add(commands, ui)
    sub.add_argument("preset", nargs="?", default="demo", help="whose `run.home` to serve")
    _add_settings(sub)
    sub.add_argument("--database", default="", metavar="URL", help="PostgreSQL instead of SQLite in run.home")
    words = "address to listen on; any but loopback needs PREFECT_SERVER_API_AUTH_STRING"
    sub.add_argument("--host", default="127.0.0.1", help=words)
    sub.add_argument("--port", type=int, default=0, help="port there; 4242 if it is free")
    sub = _add(commands, notify)
    sub.add_argument("blocks", nargs="*", metavar="TYPE/NAME", help="such as slack-webhook/team; none tells nobody")
    sub.set_defaults(preset="demo")
    _add_settings(sub)
    sub = _add(commands, runs)
    sub.add_argument("--last", type=int, default=20, help="how many (default 20)")
    for option, what in (("keep", "mark it: `prune` keeps what it reaches"), ("release", "take its mark away")):
        sub.add_argument(f"--{option}", action="append", default=[], metavar="RUN", help=what)
    sub = _add(commands, show)
    sub.add_argument("run", nargs="?", help="name of the run; the newest by default")
    sub = _add(commands, diff)
    for side in ("left", "right"):
        sub.add_argument(side, metavar="RUN", help="name of a run")
    sub.add_argument("--all", action="store_true", help="equal data and figures too")
    sub = _add(commands, whatif)
    sub.add_argument("set", nargs="+", metavar="CLEAN.FIELD=VALUE", help="a threshold of clean, as in --set")
    sub.add_argument("--run", help="name of the run; the newest that finished clean by default")
    sub = _add(commands, chat)
    sub.add_argument("folder", nargs="?", default="out/demo/model", help="model folder (default out/demo/model)")
    sub.add_argument("--temperature", type=temperature, default=0.0, help="0, the default, gives the likeliest answer")
    sub.add_argument("--max-new-tokens", type=count, default=128, help="longest answer in tokens (default 128)")
    sub = _add(commands, trace)
    words = "model folder, run, start of a key or digest; or a document's id or URL"
    sub.add_argument("what", help=words)
    sub.add_argument("--step", type=int, help="the documents of this step, from 0, of the whole run or of --phase")
    sub.add_argument("--phase", metavar="NAME", help="count --step in this phase, such as pretrain-256")
    sub.add_argument("--prov", metavar="FILE", help="write the lineage of a model as W3C PROV-JSON")
    sub = _add(commands, takedown)
    sub.add_argument("file", help="text file of ids and URLs, one a line; # begins a remark")
    sub.add_argument("preset", nargs="?", default="demo", help="the preset or YAML file to make again (default demo)")
    _add_settings(sub)
    sub.add_argument("--until", metavar="STAGE", help="the last stage to make again")
    sub.add_argument("--apply", action="store_true", help="write the block list and make again what follows")
    sub.add_argument("--purge", action="store_true", help="then remove what still holds the text, and say what is left")
    sub = _add(commands, verify)
    sub.add_argument("--deep", action="store_true", help="read every byte and compare its sha256")
    sub = _add(commands, prune)
    sub.add_argument("--keep", type=int, default=10, help="newest runs to keep (default 10)")
    sub.add_argument("--days", type=float, default=30, help="keep the runs of so many days, too (default 30)")
    words = "also drop what old runs would need to train on from their phases; the models stay"
    sub.add_argument("--drop-state", action="store_true", help=words)
    sub.add_argument("--apply", action="store_true", help="really remove")
    return parser


def _add(commands: Any, command: Any) -> argparse.ArgumentParser:
    words = command.__doc__.splitlines()[0]
    sub: argparse.ArgumentParser = commands.add_parser(
        command.__name__, help=words, description=words, allow_abbrev=False
    )
    sub.set_defaults(command=command)
    sub.add_argument("--json", action="store_true", help="one JSON object as the last line")
    sub.add_argument("--store", metavar="URI", help="folder or s3:// prefix instead of run.store")
    return sub


def _add_settings(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", help="lay a setting over the preset's"
    )


def _sets(asked: argparse.Namespace) -> list[str]:
    return [*asked.set, *([f"run.store={asked.store}"] if asked.store else [])]


def _note(words: str) -> None:
    print(f"tokenmill: {words}", file=sys.stderr)


def _config(asked: argparse.Namespace) -> "PipelineConfig":
    from flows.config import load

    return load(asked.preset, _sets(asked))


def _store(asked: argparse.Namespace) -> "Store":
    from flows.keeping import store_at

    return store_at(asked.store)


if __name__ == "__main__":
    sys.exit(main())
