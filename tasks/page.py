"""The pages of a run in the Prefect UI, as markdown: one per stage made, and a summary of the run."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_curation.files import join, read_bytes
from data_curation.shard_index import read_index
from tasks.artifact import Manifest, commit
from tasks.budget import budget, suggestion, tables
from tasks.funnel import FLOW, flow, stage_funnel
from tasks.run import Run, StageRecord
from training.pretrain import PretrainConfig
from training.verdict import FAILED, outcome


def stage_page(record: StageRecord, run: Run) -> str:
    """What a stage took, made and dropped, its plots, its inputs, and why it ran."""
    manifest = record.manifest
    assert manifest is not None
    counts = manifest.counts
    lines = [
        f"# {record.name}",
        f"Why it ran: **{record.why}**",
        f"{manifest.seconds:,.1f} s, {_bytes(manifest.peak_memory)} of memory, {_bytes(manifest.size())} written. "
        f"Digest `{manifest.digest[:16]}`, attempt {manifest.attempt} of key `{manifest.key[:16]}`.",
    ]
    units = list(dict.fromkeys([*counts.taken, *counts.made]))
    if units:
        rows = [[unit, _number(counts.taken.get(unit)), _number(counts.made.get(unit))] for unit in units]
        lines += ["## In and out", table(["", "in", "out"], rows)]
    funnel = stage_funnel(manifest, record.uri)
    if funnel:
        lines += _funnel(funnel)
    elif counts.funnel:
        rows = [[row["step"], row["reason"], _number(row["documents"]), _bytes(row["bytes"])] for row in counts.funnel]
        lines += ["## Dropped", table(["step", "reason", "documents", "size"], rows)]
    if counts.metrics:
        rows = [[name, metric_text(metric), _number(metric.get("n"))] for name, metric in counts.metrics.items()]
        lines += ["## Metrics", table(["", "value", "n"], rows)]
    if counts.gates:
        lines += ["## Gates", table(["gate", "value", "against", ""], [_gate(gate) for gate in counts.gates])]
    if record.stage == "shard" and "pretrain" in run.config:
        lines += _budget(record, run)
    lines += [f"> {warning}" for warning in [*counts.warnings, *record.warnings]]
    for file in manifest.records:
        if file.path.endswith(".svg"):
            lines.append(_image(file.path, read_bytes(join(record.uri, "records", file.path))))
    for sample in counts.samples[:5]:
        lines += [f"### {sample['title']}", "```", str(sample["text"])[:1000].replace("```", "'''"), "```"]
    lines += _drops(funnel) if funnel else []
    lines += ["## Inputs", table(["argument", "part", "digest", "read from"], _inputs(manifest))]
    lines += ["## Outputs", table(["part", "files", "size", "digest"], _outputs(manifest)), f"In `{record.uri}`."]
    lines.append(f"Run `{run.id}`, commit `{manifest.commit[:12] or 'unknown'}`.")
    return "\n\n".join(lines)


def run_page(run: Run, report: str) -> str:
    """All stages of the run with their states and seconds, cached ones told apart."""
    rows = [
        [_link(record), *_against(record, run), record.why, _code((record.digest or "")[:12])] for record in run.stages
    ]
    made = sum(record.state == "made" for record in run.stages)
    cached = sum(record.state == "cached" for record in run.stages)
    lines = [
        f"# {Path(run.preset).stem}: {made} made, {cached} cached",
        table(
            ["stage", "state", "seconds", "planned seconds", "written", "planned size", "why it ran", "digest"], rows
        ),
        *[f"> {warning}" for warning in run.warnings],
        f"Report: `{report}`. Run `{run.id}` of `{run.preset}` in store `{run.store.root}`, "
        f"commit `{commit()[:12] or 'unknown'}`.",
    ]
    return "\n\n".join(lines)


def progress_page(name: str, why: str, now: str, plots: Mapping[str, bytes], said: Sequence[str]) -> str:
    """What a stage says while it works, and plots of it by name; its page takes this one's place."""
    lines = [f"# {name}", f"Why it runs: **{why}**", f"At work: {now}"]
    lines += [_image(plot, svg) for plot, svg in plots.items()]
    if said:
        lines.append("```\n" + "\n".join(said) + "\n```")
    return "\n\n".join(lines)


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A markdown table; bars in cells are escaped."""
    body = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [list(header), ["---"] * len(header), *body])


def metric_text(metric: dict[str, Any]) -> str:
    """A value with its standard error where there is one."""
    value, error = metric["value"], metric.get("standard_error")
    if not isinstance(value, float):
        return _number(value)
    return f"{value:,.4g}" + (f" ± {error:.2g}" if error is not None else "")


def _image(name: str, svg: bytes) -> str:
    return f"![{name}](data:image/svg+xml;base64,{base64.b64encode(svg).decode()})"


def _link(record: StageRecord) -> str:
    """The stage's page over all runs; a stage that has none was cached in every run of this server."""
    return f"[{record.name}](../key/{record.name})"


def _against(record: StageRecord, run: Run) -> list[str]:
    """State, seconds and bytes of a stage, each beside what the plan expected."""
    planned = run.expected.get(record.name, {}) if record.state != "cached" else {}
    made = record.state == "made" and record.manifest is not None
    return [
        f"**{record.state}**" if record.state == "failed" else record.state,
        f"{record.seconds:,.1f}",
        f"{planned['seconds']:,.1f}" if "seconds" in planned else "",
        _bytes(record.manifest.size()) if made and record.manifest else "",
        _bytes(planned["bytes"]) if "bytes" in planned else "",
    ]


def _funnel(funnel: dict[str, Any]) -> list[str]:
    steps = [
        [row["step"], *flow(row), ", ".join(f"{reason} {number:,}" for reason, number in row["reasons"].items())]
        for row in funnel["steps"]
    ]
    groups = [[row["source"], row["language"], *flow(row)] for row in funnel["groups"]]
    return [
        f"## Funnel: {funnel['documents_per_second']:,} documents a second",
        table(["step", *FLOW, "dropped for"], steps),
        table(["source", "language", *FLOW], groups),
    ]


def _budget(record: StageRecord, run: Run) -> list[str]:
    """What these shards hold against what the phases of this run ask for."""
    index, _ = read_index(join(record.uri, "shards"))
    made = budget(PretrainConfig.model_validate(run.config["pretrain"]), index.vocabulary, index.lengths)
    lines = [f"## {title}\n\n{table(header, rows)}" for title, header, rows in tables(made, index.lengths)]
    lines += [f"> {warning}" for warning in made.warnings]
    if made.warnings and made.suggestion:
        lines += ["Phases that these data allow:", f"```yaml\n{suggestion(made)}\n```"]
    return lines


def _drops(funnel: dict[str, Any]) -> list[str]:
    """The sampled drops of each reason, with the passage that caused each."""
    lines = ["## Dropped, for example"] if funnel["drops"] else []
    for group in funnel["drops"]:
        rows = [[_code(row["url"] or row["id"]), _code(row["passage"])] for row in group["documents"]]
        lines += [f"### {group['step']}: {group['reason']}", table(["document", "passage"], rows)]
    return lines


def _code(text: str) -> str:
    """Text from the web as inline code: nothing in it is taken for markdown or HTML."""
    plain = " ".join(text.split()).replace("`", "'")
    return f"`{plain}`" if plain else ""


def _gate(gate: dict[str, Any]) -> list[str]:
    words = outcome(gate)
    shown = f"**{words.upper()}**" if words == FAILED else words
    return [gate["gate"], metric_text(gate), str(gate["against"]), shown]


def _inputs(manifest: Manifest) -> list[list[str]]:
    """Every part that was read, with its digest as in the key and the place that it was read from."""
    rows: list[list[str]] = []
    for argument, uris in manifest.sources.items():
        identity = manifest.inputs[argument]
        read = [identity] if isinstance(identity, dict) else [item["parts"] for item in identity or []]
        for uri, parts in zip(uris, read, strict=True):
            rows += [[argument, part, f"`{digest[:12]}`", f"`{uri}`"] for part, digest in parts.items()]
    return rows


def _outputs(manifest: Manifest) -> list[list[str]]:
    return [
        [name, _number(len(part.files)), _bytes(sum(file.size for file in part.files)), f"`{part.digest[:12]}`"]
        for name, part in manifest.parts.items()
    ]


def _number(value: Any) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int | float) else str(value)


def _bytes(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"
