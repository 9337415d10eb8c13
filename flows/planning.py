"""`tokenmill plan`: what would run, why, and what it asks of data, time, disk and money."""

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flows.config import PipelineConfig
from flows.start import DONE, prepare
from flows.terminal import count, print_table, seconds_of

if TYPE_CHECKING:
    from tasks.run import Run


def show_plan(config: PipelineConfig, asked: argparse.Namespace) -> int:
    """Look everything up, calibrate if asked, print; nothing is run and no server is needed."""
    prepare(config)
    from flows.run import Asked, plan
    from tasks.plan import public, total

    speeds = _probe(config) if asked.probe else {}
    planned = plan(asked.preset, config, Asked(asked.refresh, asked.remake, asked.accept, asked.until), speeds)
    entries = [public(record, config.run.usd_per_hour) for record in planned.stages]
    whole = total(entries)
    if asked.json:
        budget = None if planned.budget is None else asdict(planned.budget)
        print(json.dumps({"stages": entries, "total": whole, "budget": budget, "probe": speeds}))
        return DONE
    rows = [
        [entry["name"], entry["state"], seconds_of(entry), count(entry.get("tokens")), entry["why"]]
        for entry in entries
    ]
    print_table(["stage", "state", "seconds", "tokens", "why"], rows)
    _print_budget(planned)
    print(_words(whole, config.run.usd_per_hour))
    for entry in entries:
        for warning in entry["warnings"]:
            print(f"warning: {warning}")
    return DONE


def _probe(config: PipelineConfig) -> dict[str, float]:
    from tasks.probe import probe

    resources = config.run.stages.get("pretrain", config.run.resources)
    return probe(config.pretrain, config.tokenizer.vocab_size, resources)


def _print_budget(planned: "Run") -> None:
    from tasks.budget import suggestion, tables
    from tasks.plan import shard_index

    if planned.budget is None or not any(record.stage == "pretrain" for record in planned.stages):
        return
    index = shard_index(planned.stages)
    for title, header, rows in tables(planned.budget, index.lengths if index else None):
        print(f"\n{title}")
        print_table(header, rows)
    if planned.budget.warnings and (lines := suggestion(planned.budget)):
        print(f"\nPhases that these data allow:\n{lines}")
    print()


def _words(whole: dict[str, Any], usd_per_hour: float) -> str:
    """The whole road in a line."""
    parts = [f"{whole['flops']:.3g} FLOPs of pretraining"] if whole["flops"] else []
    parts += [f"{whole['gpu_hours']:,.1f} GPU-hours of it"] if whole["gpu_hours"] else []
    unknown = whole["unknown"]
    parts += [f"{whole['hours']:,.2f} h of this machine"] if whole["hours"] or not unknown else []
    parts += [f"{whole['usd']:,.2f} USD at {usd_per_hour:g} an hour"] if usd_per_hour and whole["usd"] else []
    parts += [f"{whole['bytes'] / 1e9:,.1f} GB of disk"]
    line = f"all that would run: {', '.join(parts)}"
    if unknown:
        line += f"; hours of {len(unknown)} stages are unknown, as they were never made here"
        line += " (--probe measures pretraining)" if any(name.startswith("pretrain") for name in unknown) else ""
    return line
