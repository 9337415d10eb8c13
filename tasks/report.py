"""The report of a run: report.html for people, report.json for programs, the model beside them."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from jinja2 import Environment, FileSystemLoader, select_autoescape

from data_curation.artifact import SMALL
from data_curation.files import copy_file, join, read_bytes
from tasks import side_by_side
from tasks.artifact import commit, machine
from tasks.funnel import FLOW, flow, stage_funnel
from tasks.page import metric_text
from tasks.plan import against
from tasks.run import Run, StageRecord
from tasks.secrets import clean
from training.verdict import outcome


def publish_report(run: Run, state: str, error: str) -> str:
    """Write both reports into the store's run folder and the export folder; returns report.html's path there."""
    data = json.loads(clean(json.dumps(report_data(run, state, error))))
    page = render(run, data)
    encoded = json.dumps(data, indent=1).encode()
    run.store.write_run(run.id, "report.json", encoded)
    run.store.write_run(run.id, "report.html", page)
    export = export_folder(run)
    export.mkdir(parents=True, exist_ok=True)
    (export / "report.json").write_bytes(encoded)
    (export / "report.html").write_bytes(page)
    for record in run.stages:
        if record.stage == "publish" and record.manifest is not None:
            _export_model(record, export / "model")
    return str(export / "report.html")


def export_folder(run: Run) -> Path:
    """Where this run's report and model are put for people."""
    return Path(run.settings.export or f"out/{Path(run.preset).stem}")


def report_data(run: Run, state: str, error: str) -> dict[str, Any]:
    """The stable fields of report.json, from the manifests of everything the run used."""
    seconds = sum(record.manifest.seconds for record in run.stages if record.manifest)
    made = sum(record.seconds for record in run.stages if record.state != "cached")
    return {
        "run": run.id,
        "preset": run.preset,
        "state": state,
        "error": clean(error),
        "started": run.started,
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "stages": [record.public() | _figures(record) for record in run.stages],
        "funnel": [
            {"stage": record.stage, **row}
            for record in run.stages
            if record.manifest
            for row in record.manifest.counts.funnel
        ],
        "curation": [
            {"stage": record.name, **funnel}
            for record in run.stages
            if record.manifest and (funnel := stage_funnel(record.manifest, record.uri))
        ],
        "gates": [
            {"stage": record.name, **gate, "outcome": outcome(gate)}
            for record in run.stages
            if record.manifest
            for gate in record.manifest.counts.gates
        ],
        "evaluations": {
            model: record.manifest.counts.metrics
            for model, record in side_by_side.evaluations(run.stages).items()
            if record.manifest
        },
        "gains": side_by_side.gains(run.stages, run.settings.usd_per_hour),
        "answers": side_by_side.answers(run.stages),
        "cost": {
            "seconds_of_this_run": round(made, 1),
            "seconds_of_all_stages": round(seconds, 1),
            "usd_of_all_stages": round(seconds / 3600 * run.settings.usd_per_hour, 4),
        },
        "budget": against(run.expected, run.stages, run.settings.usd_per_hour),
        "warnings": run.warnings + [warning for record in run.stages for warning in _warnings(record)],
    }


def render(run: Run, data: dict[str, Any]) -> bytes:
    """report.html: one file, no network, plots inside."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    cast(dict[str, Any], templates.filters).update(metric=metric_text, size=_megabytes, flow=flow)
    stages = [_view(record) for record in run.stages]
    page = templates.get_template("report.html.j2").render(
        report=data, stages=stages, table=side_by_side.comparison(data["evaluations"]), flow_header=FLOW
    )
    return page.encode()


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _figures(record: StageRecord) -> dict[str, Any]:
    if record.manifest is None:
        return {}
    manifest = record.manifest
    return {
        "taken": manifest.counts.taken,
        "made_units": manifest.counts.made,
        "metrics": manifest.counts.metrics,
        "work_seconds": manifest.seconds,
        "peak_memory": manifest.peak_memory,
        "bytes": manifest.size(),
        "made_by_run": manifest.run,
    }


def _warnings(record: StageRecord) -> list[str]:
    counted = [f"{record.name}: {text}" for text in record.manifest.counts.warnings] if record.manifest else []
    return record.warnings + counted


def _view(record: StageRecord) -> dict[str, Any]:
    """A stage for the template: its record, manifest, drawn plots and the share each drop has."""
    plots: list[str] = []
    if record.manifest is not None:
        svgs = [file.path for file in record.manifest.records if file.path.endswith(".svg")]
        plots = [_svg(read_bytes(join(record.uri, "records", path)).decode(), f"{record.name}-{path}") for path in svgs]
    funnel = stage_funnel(record.manifest, record.uri) if record.manifest else {}
    return {"record": record, "manifest": record.manifest, "plots": plots, "funnel": funnel}


def _svg(text: str, name: str) -> str:
    """An SVG's element alone, its ids made unique: several drawings share one page."""
    body = text[text.index("<svg") :]
    mark = "".join(sign if sign.isalnum() else "-" for sign in name)
    for word in ('id="', "url(#", 'href="#'):
        body = body.replace(word, f"{word}{mark}-")
    return body


def _export_model(record: StageRecord, target: Path) -> None:
    """Put the published model beside the report."""
    assert record.manifest is not None
    shutil.rmtree(target, ignore_errors=True)
    for file in record.manifest.parts["model"].files:
        # Only what is large shares its bytes with the store: people edit a config.json in place.
        copy_file(join(record.uri, "model", file.path), str(target / file.path), link=file.size > SMALL)
