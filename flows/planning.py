"""`tokenmill plan`: what would run, why, and what it asks of data, time, disk and money."""

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flows.config import PipelineConfig
from flows.ending import DONE
from flows.terminal import count, duration, megabytes, print_table

if TYPE_CHECKING:
    from tasks.estimate import Calibration
    from tasks.run import Run


def show_plan(config: PipelineConfig, asked: argparse.Namespace) -> int:
    """Look everything up, calibrate if asked, print; nothing is run and no server is needed."""
    from flows.plan import Asked, plan
    from tasks.estimate import Calibration
    from tasks.plan import public, total

    asked_for = Asked(asked.refresh, asked.remake, asked.accept, asked.until)
    planned = plan(asked.preset, config, asked_for)
    calibration = _probe(config, planned) if asked.probe else Calibration()
    if asked.probe:
        planned = plan(asked.preset, config, asked_for, calibration)
    entries = [public(record, config.run.usd_per_hour) for record in planned.stages]
    whole = total(entries)
    if asked.json:
        budget = None if planned.budget is None else asdict(planned.budget)
        found = {"stages": entries, "total": whole, "budget": budget, "missing": planned.missing}
        print(json.dumps(found | {"probe": asdict(calibration)}))
        return DONE
    print_table(["stage", "state", "time", "disk", "tokens", "FLOPs", "why"], [_row(entry) for entry in entries])
    _print_budget(planned)
    print(_words(whole, config.run.usd_per_hour))
    for warning in [*planned.missing, *(warning for entry in entries for warning in entry["warnings"])]:
        print(f"warning: {warning}")
    return DONE


def _row(entry: dict[str, Any]) -> list[str]:
    flops = entry.get("flops")
    return [
        entry["name"],
        entry["state"],
        duration(entry.get("seconds"), entry.get("seconds_from", "last run") in ("last run", "probe")),
        megabytes(entry.get("bytes")),
        count(entry.get("tokens")),
        f"{flops:.2g}" if flops else "",
        entry["why"],
    ]


def _probe(config: PipelineConfig, planned: "Run") -> "Calibration":
    """Speeds of pretraining, and rates of curation if the sources are here."""
    from tasks.estimate import Calibration
    from tasks.probe import probe
    from tasks.probe_curation import probe_curation

    listed = planned.listed.get("sources-web")
    curation = probe_curation(planned.config, listed) if listed else {}
    return Calibration(probe(config.pretrain, config.tokenizer.vocab_size, planned.resources("pretrain")), curation)


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
    unknown = whole["unknown"]
    parts = [f"{whole['flops']:.3g} FLOPs"] if whole["flops"] else []
    parts += [f"{whole['gpu_hours']:,.1f} GPU-hours"] if whole["gpu_hours"] else []
    parts += [f"{duration(3600 * whole['hours'])} of this machine"] if whole["hours"] or not unknown else []
    parts += [f"{whole['usd']:,.2f} USD at {usd_per_hour:g} an hour"] if usd_per_hour and whole["usd"] else []
    parts += [f"{megabytes(whole['bytes'])} of disk"]
    line = f"all that would run: {', '.join(parts)}"
    if unknown:
        line += f"; of {', '.join(unknown)} nothing is known, as their sources are not here yet"
    return line
