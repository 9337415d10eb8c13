"""Writes what benchmarks/align_gpu.py measured on a GPU into results/align_gpu.json and its section of RESULTS.md.

python -m benchmarks.align_gpu_report FILE.json --date 2026-11-26 --commit HASH        (on any machine)
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.align_gpu import ORDER, VLLM
from benchmarks.measure import FOLDER, with_section

TITLE = "## align_gpu.py: post-training on one GPU"
NOTE = """\
A base of 116 million parameters, pretrained there, then our stages `instruct`, `prefer` and `reinforce` and, in
processes of their own, plain TRL scripts on the same data in the same order: equal batch, length, learning rate,
bfloat16 products of float32 weights, fused AdamW, transformers' SDPA. Speeds are of steps 6 to 40. With "our rows a
pass" and "a quarter of them" TRL recomputes nothing in the backward pass, as ours; "recomputing" is TRL's default.
SFT: TRL lays the rows of a pass end to end, so that its attention costs the square of a pass; ours lie side by side.
DPO: ours computes the reference once before the first step, TRL in each step; "reference included" gives ours its
share of that time over all its steps. GRPO counts samples, since answers differ in length by chance; ours
samples from a copy in bfloat16, each token of all rows by one launch of a CUDA graph, TRL by transformers' `generate`.
`vllm` is GRPO's first 40 steps once more, answers by vLLM, for their speed: too few for its gate. The conversations are
the demo's, the tasks generated, of which `instruct` learns the first half; the vocabulary has 4,096 tokens. Learning
rates of `prefer` and `reinforce` were chosen in runs that are not kept here, on the same held-out tasks."""


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="what --out of benchmarks.align_gpu wrote")
    parser.add_argument("--date", required=True)
    parser.add_argument("--commit", required=True)
    parser.add_argument("--remark", default="", help="what a reader must know of this one run")
    asked = parser.parse_args()
    found = json.loads(asked.file.read_text())
    found["failed"] = {name: words.strip().splitlines()[-1] for name, words in found["failed"].items()}
    result = found | {"date": asked.date, "commit": asked.commit, "remark": asked.remark}
    (FOLDER / "results" / "align_gpu.json").write_text(json.dumps(result, indent=1) + "\n")
    page = FOLDER / "RESULTS.md"
    page.write_text(with_section(page.read_text(), TITLE, section(result)))


def section(result: dict[str, Any]) -> str:
    """A result as Markdown: speeds beside TRL's, then what every part took and reached."""
    some = next(lines[0] for lines in result["measured"].values() if lines)
    versions = ", ".join(f"{name} {version}" for name, version in some["versions"].items())
    lines = [f"{result['date']}, commit {result['commit'][:12]}, {some['device']}, {versions}.", "", NOTE, ""]
    lines += [f"**{result['remark']}**", ""] if result["remark"] else []
    lines += ["| what | ours | TRL | unit | ratio | not slower |", "|---|---|---|---|---|---|"]
    for line in result["rows"]:
        other = "" if line["other"] is None else f"{line['other']:,.10g}"
        ratio = "" if line["ratio"] is None else f"{line['ratio']:.2f}"
        met = {None: "", True: "yes", False: "no"}[line["met"]]
        lines.append(f"| {line['name']} | {line['ours']:,.10g} | {other} | {line['unit']} | {ratio} | {met} |")
    lines += ["", "Seconds of a step and memory:", ""]
    for name in ORDER + VLLM:
        lines += [_part(name, one) for one in result["measured"].get(name, [])]
    lines += [f"- not measured: {name}: {words}" for name, words in result["failed"].items()]
    lines += ["", "What differed in the output, [step, ours, TRL's mean since its line before]:", ""]
    lines += [f"- {name}: {json.dumps(value)}" for name, value in result["agreement"].items()]
    return "\n".join(lines)


def _part(name: str, one: dict[str, Any]) -> str:
    trainer = one["trainer"]
    step = f"{trainer['step_ms'] / 1e3:.3f} s a step of {trainer['rows_a_step']} rows, " if trainer else ""
    whole = f", {one['seconds']:.0f} s in all" if "seconds" in one else ""
    way = f", {one['way']}" if "way" in one else ""
    return f"- {name}{way}: {step}{one['peak_gib']} GiB{whole}"


if __name__ == "__main__":
    main()
