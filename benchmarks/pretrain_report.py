"""Writes what benchmarks/pretrain.py measured on a GPU into results/pretrain.json and its section of RESULTS.md.

python -m benchmarks.pretrain_report FILE.json --date 2026-11-25 --commit HASH        (on any machine)
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.measure import FOLDER, row, with_section
from benchmarks.pretrain_rows import PEERS

GOALS = {"d20-8k": 132e3, "d20-8k-sdpa": 122e3, "d20-2k": 165e3, "d20-8k-packed": 175e3, "d20-32k": 70e3, "1b-8k": 74e3}
"""Tokens per second."""
FIRST_STEP, SWITCH = 15.0, 5.0
"""Seconds, at most."""
NOTE = """\
One process per row, bfloat16 products, float32 weights, AdamW; tokens per second over three repeats (their median), the
optimizer included; packed rows hold documents of 1,500 tokens on average. `peer` is transformers' Trainer with Liger
kernels (of packed rows: with a 4D mask), on as many rows as fit its memory. MFU = (6 N + 6 L H D T') tokens/s / 989.4
TFLOP/s, N without embeddings, the causal half of attention once, T' the mean document. The floor is the step's matrix
products at the speed of one large product, and its attention alone."""


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="what --out of benchmarks.pretrain wrote")
    parser.add_argument("--date", required=True)
    parser.add_argument("--commit", required=True)
    asked = parser.parse_args()
    found = json.loads(asked.file.read_text())
    measured = {one["row"]: one for one in found["rows"] if "tokens_per_second" in one}
    failed = {one["row"]: one["error"].strip().splitlines()[-1] for one in found["rows"] if "error" in one}
    result = {"rows": _rows(measured), "agreement": {"losses": {name: one["loss"] for name, one in measured.items()}}}
    result |= {"date": asked.date, "commit": asked.commit, "measured": _plain(found["rows"], failed)}
    result |= {"product_tflops": found["product_tflops"]}
    (FOLDER / "results" / "pretrain.json").write_text(json.dumps(result, indent=1) + "\n")
    page = FOLDER / "RESULTS.md"
    text = _section(result, measured, failed)
    page.write_text(with_section(page.read_text(), "## pretrain.py: training on one GPU", text))


def _plain(rows: list[dict[str, Any]], failed: dict[str, str]) -> list[dict[str, Any]]:
    """What was measured; of an error its last line, for the others name places of one machine."""
    return [one | ({"error": failed[one["row"]]} if one["row"] in failed else {}) for one in rows]


def _rows(measured: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    rows = list[dict[str, Any]]()
    for name, one in measured.items():
        if one["settings"]["engine"] == "ours":
            peer = measured.get(PEERS.get(name, ("", 0))[0])
            other = peer["tokens_per_second"] if peer else None
            rows.append(row(name, one["tokens_per_second"], other, "tokens/s", GOALS.get(name)))
    first = max(one["first_step_seconds"] for name, one in measured.items() if name in GOALS)
    rows.append(row("first step after the start, slowest", first, None, "s", FIRST_STEP, less=True))
    switches = [one["switch_seconds"] for one in measured.values() if one.get("switch_seconds") is not None]
    if switches:
        rows.append(row("first step after a change of length", max(switches), None, "s", SWITCH, less=True))
    return rows


def _section(result: dict[str, Any], measured: dict[str, dict[str, Any]], failed: dict[str, str]) -> str:
    some = next(iter(measured.values()))
    lines = [
        f"{result['date']}, commit {result['commit'][:12]}, {some['device']}, torch {some['torch']}; "
        f"a large product runs at {result['product_tflops']:.0f} TFLOP/s.",
        "",
        NOTE,
        "",
        "| row | tokens/s | peer | ratio | goal | met | MFU | of floor | first step, s | GiB | loss, first and last |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for line in result["rows"]:
        one = measured.get(line["name"])
        if one:
            lines.append(_line(line, one))
    lines += [""]
    for line in result["rows"]:
        if line["name"] not in measured:
            lines.append(f"- {line['name']}: {line['ours']} s, goal {line['goal']:g} s")
    lines += [f"- not measured: {name}: {words}" for name, words in failed.items()]
    lines += ["", "Where a step's time goes, milliseconds of the slowest kernels:", ""]
    for name in ("d20-8k", "d20-8k-packed"):
        kernels = measured[name]["kernels"][:8] if name in measured else []
        lines.append(
            f"- {name}: " + ", ".join(f"`{kernel[:48]}` {time:g} ({calls})" for kernel, time, calls in kernels)
        )
    return "\n".join(lines)


def _line(line: dict[str, Any], one: dict[str, Any]) -> str:
    met = {None: "", True: "yes", False: "no"}[line["met"]]
    cells = [
        line["name"],
        f"{line['ours']:,}",
        f"{line['other']:,}" if line["other"] else "",
        f"{line['ratio']:.2f}" if line["ratio"] else "",
        f"{line['goal']:,.0f}" if line["goal"] else "",
        met,
        f"{one['mfu']:.1%}",
        f"{one['of_floor']:.0%}",
        f"{one['first_step_seconds']:.1f}",
        f"{one['peak_gib']:.0f}",
        ", ".join(map(str, one["loss"])),
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
