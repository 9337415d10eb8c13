"""The command `tokenmill run`: a server where there is none, the flow, and its outcome in words and JSON."""

import argparse
import difflib
import functools
import importlib
import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from data_curation.settings import ConfigError
from flows.config import PipelineConfig, load, stage_names
from flows.ending import DONE, Terminated, failure
from flows.server import HEARTBEAT, environment, flush, serving
from flows.terminal import print_stages


def start(asked: argparse.Namespace, sets: Sequence[str]) -> int:
    """Run the road; with `--json` the last line says how it went, on failure too. Returns the exit code."""
    signal.signal(signal.SIGTERM, _terminated)
    summary: dict[str, Any] = {"run": None, "stages": [], "report": None, "model": None}
    code = DONE
    try:
        config = load(asked.preset, sets)
        _check(config, asked)
        summary = _run_flow(config, asked, sets)
    except (Exception, KeyboardInterrupt) as error:
        code = failure(error)
        summary |= {"error": str(error) or type(error).__name__} | _ended()
    if asked.json:
        print(json.dumps(summary), flush=True)
    elif summary["report"]:
        print_stages(summary["stages"])
        print(f"report  {summary['report']}")
        print(f"model   {summary['model'] or 'not part of this run'}")
    return code


def _check(config: PipelineConfig, asked: argparse.Namespace) -> None:
    """What can be told without a server: names of stages, a store that cannot be written."""
    from tasks.store import Store

    known = stage_names(config)
    for option in ("refresh", "remake", "accept", "until"):
        value = getattr(asked, option) or []
        for name in [value] if isinstance(value, str) else value:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                raise ConfigError(f"--{option} {name}: no such stage: {', '.join(near or known)}")
    Store(config.run.store).check_writable()


def _run_flow(config: PipelineConfig, asked: argparse.Namespace, sets: Sequence[str]) -> dict[str, Any]:
    """Run the flow against PREFECT_API_URL, or against our own server on loopback."""

    def call() -> dict[str, Any]:
        _quiet()
        from flows.run import pipeline

        return pipeline(
            preset=asked.preset,
            set=list(sets),
            refresh=asked.refresh,
            until=asked.until,
            remake=asked.remake,
            accept=asked.accept,
        )

    os.environ.update(HEARTBEAT)
    if os.environ.get("PREFECT_API_URL"):
        return call()
    home = Path(config.run.home)
    with serving(home) as api:
        os.environ.update(environment(home, api))
        try:
            return call()
        finally:
            flush()


def _ended() -> dict[str, Any]:
    """What the run itself said at its end, if there was one: a signal's error carries nothing."""
    module: Any = sys.modules.get("flows.run")
    return dict(module.ENDED[-1]) if module is not None and module.ENDED else {}


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated


def _quiet() -> None:
    """Leave out of the terminal what a user cannot act on; the run's page keeps all of it."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # deprecations of Prefect's own libraries
    importlib.import_module("prefect.main")  # sets up the logging that is changed here

    for logger in (logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))):
        for handler in logger.handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.format = functools.partial(_without_stack, handler.format)


def _without_stack(formatted: Callable[[logging.LogRecord], str], record: logging.LogRecord) -> str:
    """Every failure ends in one line of ours; Prefect would print its call stack three times before."""
    brief = logging.makeLogRecord(vars(record) | {"exc_info": None, "exc_text": None})
    return formatted(brief)
