"""Adds what a call of benchmarks/pretrain.py measured on GPUs to results/pretrain.json, and writes its section anew.

python -m benchmarks.pretrain_report FILE.json --date 2026-11-25 --commit HASH [--rows d20-8k,1b-8k]   (on any machine)

Both sides of a row are from one call, for two machines of a kind differ by some percent.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.measure import FOLDER, row, with_section
from benchmarks.pretrain_rows import PEERS

Call = dict[str, Any]
GOALS = {
    "d20-8k": 132e3, "d20-8k-sdpa": 122e3, "d20-2k": 165e3, "d20-8k-packed": 175e3, "d20-32k": 70e3, "d20-128k": 24e3,
    "1b-8k": 74e3, "1b-32k": 43e3, "1b-128k": 15e3,
}  # fmt: skip
"""Tokens per second on one H100."""
FIRST_STEP, SWITCH = 15.0, 5.0
"""Seconds, at most."""
NOTE = """\
One process per row, bfloat16 products, float32 weights, AdamW; tokens per second over three repeats (their median), the
optimizer included; packed rows hold documents of 1,500 tokens on average, all others one document a row. `peer` of a
row is what PEERS in pretrain_rows.py names, where the same call measured it: transformers' Trainer with Liger kernels
(as many rows as fit its memory; of packed rows with a 4D mask), torchtitan's Trainer on transformers' model, bfloat16
beside 8 bits, one GPU beside two (x2). Ratios without a goal say what is gained. MFU = (6 N + 6 L H D T') tokens/s /
989.4 TFLOP/s a GPU, N without embeddings, the causal half of attention once, T' the mean document. The floor is the
step's matrix products at the speed of one large product in bfloat16, and its attention alone. Newest calls first; a row
may stand in several."""


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="what --out of benchmarks.pretrain wrote")
    parser.add_argument("--date", required=True)
    parser.add_argument("--commit", required=True)
    parser.add_argument("--rows", help="these alone; without it all")
    asked = parser.parse_args()
    found = json.loads(asked.file.read_text())
    wanted = asked.rows.split(",") if asked.rows else [one["row"] for one in found["rows"]]
    kept = [_plain(one) for one in found["rows"] if one["row"] in wanted]
    call = {"date": asked.date, "commit": asked.commit, "product_tflops": found["product_tflops"], "rows": kept}
    path = FOLDER / "results" / "pretrain.json"
    calls = [call, *(json.loads(path.read_text())["calls"] if path.exists() else [])]
    path.write_text(json.dumps({"calls": calls}, indent=1) + "\n")
    page = FOLDER / "RESULTS.md"
    page.write_text(with_section(page.read_text(), "## pretrain.py: training on GPUs", _section(calls)))


def _plain(one: dict[str, Any]) -> dict[str, Any]:
    """Of an error its last line, for the others name places of one machine."""
    return one | ({"error": one["error"].strip().splitlines()[-1]} if "error" in one else {})


def _section(calls: list[Call]) -> str:
    lines = [
        NOTE,
        "",
        "| row | tokens/s | peer | ratio | goal | met | MFU | of floor | first step, s | GiB | loss, first and last |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    notes, slow = list[str](), list[str]()
    for call in calls:
        measured = {one["row"]: one for one in call["rows"] if "tokens_per_second" in one}
        some = next(iter(measured.values()))
        head = f"{call['date']}, commit {call['commit'][:12]}, {some['device']}, torch {some['torch']}"
        lines.append(f"| **{head}**; a large product: {call['product_tflops']:.0f} TFLOP/s |" + " |" * 10)
        for name, one in measured.items():
            if one["settings"]["engine"] == "ours":
                peers = [each for each in PEERS.get(name, []) if each[0] in measured]
                lines += [_line(name, one, measured, *each, len(peers)) for each in peers or [("", None)]]
        notes += [
            f"- not measured on {call['date']}: {one['row']}: {one['error']}" for one in call["rows"] if "error" in one
        ]
        slow += [
            f"- {name}, commit {call['commit'][:7]}: "
            + ", ".join(f"`{kernel[:48]}` {time:g} ({calls})" for kernel, time, calls in measured[name]["kernels"][:8])
            for name in ("d20-8k", "d20-8k-packed")
            if name in measured and "H100" in some["device"]
        ]
    switches = [one["switch_seconds"] for call in calls for one in call["rows"] if one.get("switch_seconds")]
    lines += [
        "",
        f"The first row of a call compiles its kernels; with these on the disk a first step may take {FIRST_STEP:g} s.",
        f"A change of length took {', '.join(f'{one:g}' for one in switches)} s, of {SWITCH:g} s that it may take.",
    ]
    return "\n".join([*lines, "", *notes, "", "Milliseconds of a step's slowest kernels (calls):", "", *slow])


def _line(name: str, one: dict[str, Any], measured: dict[str, Any], peer: str, wanted: float | None, peers: int) -> str:
    other = measured[peer]["tokens_per_second"] if peer in measured else None
    goal = GOALS.get(name) if "H100" in one["device"] else None
    line = row(name, one["tokens_per_second"], other, "tokens/s", goal)
    met = {None: "", True: "yes", False: "no"}[line["met"]]
    ratio = one["tokens_per_second"] / other if other else None
    if ratio and wanted:
        met = f"{met} (ratio {wanted:g}: {'yes' if ratio >= wanted else 'no'})".strip()
    gpus = one["settings"].get("ranks", 1)
    cells = [
        f"{name} / {peer}" if peers > 1 else name,
        f"{line['ours']:,}",
        f"{other:,}" if other else "",
        f"{ratio:.2f}" if ratio else "",
        f"{goal:,.0f}" if goal else "",
        met,
        f"{one['mfu'] / gpus:.1%}",
        f"{one['of_floor']:.0%}" if gpus == 1 else "",
        f"{one['first_step_seconds']:.1f}",
        f"{one['peak_gib']:.0f}",
        ", ".join(map(str, one["loss"])),
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
