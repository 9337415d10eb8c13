"""Post-training on one GPU: a base made there, then our SFT, DPO and GRPO against plain TRL scripts by one clock.

python -m benchmarks.align_gpu --store out/store [--minutes 8] [--out FILE.json] [--json]     (--dry: tiny, on a CPU)
python -m benchmarks.align_gpu --parts reinforce,trl-reinforce --folder DIR --out FILE.json       goes on in both
python -m benchmarks.align_gpu --parts vllm,trl-vllm --folder DIR --out FILE.json       GRPO again, answers by vLLM

The store is one that `tokenmill run demo` filled: its shards, tokenizer and conversations are used; the tasks are
generated. Every stage and every TRL script has a process of its own. The counted steps follow some that warm up. Both
sides have equal data, order, batch, length, learning rate, bfloat16 and kernel of attention (transformers' SDPA).
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.measure import row

ORDER = ("base", "instruct", "trl-instruct", "pairs", "prefer", "trl-prefer", "reinforce", "trl-reinforce")
VLLM = ("vllm", "trl-vllm")
"""GRPO once more, its answers by vLLM on both sides; only where that is installed, so only if asked for."""
UNITS = {
    "instruct": "tokens_per_second", "prefer": "tokens_per_second", "reinforce": "rows_per_second",
    "vllm": "rows_per_second",
}  # fmt: skip
"""GRPO's answers have other lengths on both sides, by chance: samples are counted, and their lengths told."""
LEVELS = ("task accuracy", "conversation loss", "preference accuracy", "verifier accuracy", "greedy accuracy", "sample")


def main() -> int:
    """Run all, each in a process of its own; 1 if a goal is missed or a process failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="out/store", help="a store with shards, tokenizer and dialogues")
    parser.add_argument("--minutes", type=float, default=60.0, help="what would begin later is left out")
    parser.add_argument("--parts", default=",".join(ORDER), help="only these; what FILE and DIR hold of others stays")
    parser.add_argument("--part-seconds", type=float, default=240.0, help="a process that takes longer is ended")
    parser.add_argument("--out", type=Path, default=Path("align_gpu.json"))
    parser.add_argument("--folder", type=Path, help="where models stay; default: a temporary folder")
    parser.add_argument("--dry", action="store_true", help="tiny, on a CPU where there is no GPU")
    parser.add_argument("--one", choices=ORDER + VLLM, help="run this part in this process")
    parser.add_argument("--json", action="store_true", help="print the last line only")
    asked = parser.parse_args()
    if asked.one:
        for found in one(asked):
            print(json.dumps(found), flush=True)
        return 0
    with tempfile.TemporaryDirectory(prefix="tokenmill-align-gpu-") as folder:
        asked.folder = asked.folder or Path(folder)
        found = _all(asked)
    print(json.dumps({name: found[name] for name in ("rows", "agreement")}))
    missed = not asked.dry and any(line["met"] is False for line in found["rows"])
    return 1 if missed or found["failed"] else 0


def one(asked: argparse.Namespace) -> Any:
    """What one part measured, a line each."""
    import torch

    from benchmarks import align_gpu_scales, align_gpu_stages, align_gpu_trl
    from tasks.store import Store

    device = "cuda" if torch.cuda.is_available() else "cpu"
    scale = align_gpu_scales.TINY if asked.dry else align_gpu_scales.FULL
    name = asked.one.removeprefix("trl-")
    if name == asked.one:
        found = [align_gpu_stages.run(name, scale, Store(asked.store), asked.folder, device)]
    else:
        found = align_gpu_trl.run(name, scale, asked.folder, device)
    for line in found:
        yield line | _machine(torch)


def _machine(torch: Any) -> dict[str, Any]:
    gpu = torch.cuda.is_available()
    peak = round(torch.cuda.max_memory_allocated() / 2**30, 1) if gpu else None
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    versions = {name: metadata.version(name) for name in ("torch", "transformers", "trl", "datasets", "accelerate")}
    device = torch.cuda.get_device_name() if gpu else "cpu"
    return {"peak_gib": peak, "device": device, "versions": {"python": platform.python_version()} | versions}


def _all(asked: argparse.Namespace) -> dict[str, Any]:
    end = time.monotonic() + 60 * asked.minutes
    found: dict[str, Any] = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    measured: dict[str, list[dict[str, Any]]] = found.get("measured", {})
    failed: dict[str, str] = found.get("failed", {})
    for name in asked.parts.split(","):
        begin = time.monotonic()
        left = min(asked.part_seconds, end - begin)
        lines, words = _process(asked, name, left) if left > 20 else ([], "left out: no time")
        measured[name] = lines
        failed = {part: why for part, why in failed.items() if part != name} | ({name: words} if words else {})
        found = _summary(measured) | {"failed": failed, "measured": measured}
        asked.out.write_text(json.dumps(found, indent=1) + "\n")
        if not asked.json:
            print(f"{name}: {time.monotonic() - begin:.1f} s {words[-1500:]}", flush=True)
            for line in lines:
                kept = {key: value for key, value in line.get("trainer", {}).items() if key != "log"}
                print(
                    "  ", json.dumps({key: line.get(key) for key in ("way", "seconds", "peak_gib")} | kept), flush=True
                )
        if words and name in ("base", "instruct"):
            break  # all later parts need them
    return found


def _process(asked: argparse.Namespace, name: str, seconds: float) -> tuple[list[dict[str, Any]], str]:
    """The lines that a part printed, and why it failed, if it did."""
    command = [sys.executable, "-m", "benchmarks.align_gpu", "--one", name, "--store", asked.store]
    command += ["--folder", str(asked.folder), *["--dry"] * asked.dry]
    words = ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        out, words = done.stdout, done.stderr[-3000:] if done.returncode else ""
    except subprocess.TimeoutExpired as error:
        raw = error.stdout or b""
        out, words = raw.decode() if isinstance(raw, bytes) else raw, f"ended after {seconds:.0f} s"
    # Trainers print dictionaries too.
    return [json.loads(line) for line in out.splitlines() if line.startswith(('{"stage"', '{"peer"'))], words


def _summary(measured: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    rows, agreement = list[dict[str, Any]](), dict[str, Any]()
    for base in measured.get("base", []):
        rows.append(row("base: tokens/s", base["metrics"]["tokens_per_second"]["value"], None, "tokens/s"))
        rows.append(row("base: parameters", base["metrics"]["parameters"]["value"] / 1e6, None, "million"))
    for name, key in UNITS.items():
        for ours in measured.get(name, []):
            for peer in measured.get(f"trl-{name}", []):
                rows += _compared(name, key, ours["trainer"], peer)
                agreement[f"{name}, {peer['peer']}, {peer['way']}"] = _agreement(ours["trainer"], peer["trainer"])
    for name, lines in measured.items():
        for metric, value in (lines[0].get("metrics", {}) if lines else {}).items():
            if metric.startswith(LEVELS) and value["value"] is not None:
                rows.append(row(f"{name}: {metric}", value["value"], None, ""))
    return {"rows": rows, "agreement": agreement}


def _compared(name: str, key: str, ours: dict[str, Any], peer: dict[str, Any]) -> list[dict[str, Any]]:
    """Speed of the counted steps; of DPO with the reference's share too, which ours computes before the first step."""
    unit = "samples/s" if key == "rows_per_second" else "tokens/s"
    title, theirs = f"{name} / {peer['peer']}, {peer['way']}", peer["trainer"]
    rows = [row(title, round(ours[key]), round(theirs[key]), unit, round(theirs[key]))]
    if name == "prefer":
        steps = len(ours["log"])
        share = ours["before_seconds"] / steps
        whole = ours[key] * ours["seconds"] / (ours["seconds"] + share * ours["steps"])
        rows.append(row(f"{title}, reference included", round(whole), round(theirs[key]), unit, round(theirs[key])))
    if key == "rows_per_second":
        last = max(line["step"] for line in theirs["log"])
        sampled = [round(side[key] * _length(side["log"], last)) for side in (ours, theirs)]
        rows.append(row(f"{title}, tokens of answers", sampled[0], sampled[1], "tokens/s"))
    return rows


def _length(log: list[dict[str, Any]], last: int) -> float:
    """Mean tokens of the answers of the steps from 2 to `last`, or of the first."""
    found = [line["completions/mean_length"] for line in log if line["step"] <= last]
    return sum(found[1:] or found) / len(found[1:] or found)


def _agreement(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """[step, ours, theirs] of what both sides logged; theirs is a mean over the steps since its last line."""
    found: dict[str, Any] = {"tokens a row": [round(side["tokens_a_row"], 2) for side in (ours, theirs)]}
    for name in ("loss", "reward", "completions/mean_length"):
        before, lines = 0, list[list[float]]()
        for line in theirs["log"]:
            mine = [one[name] for one in ours["log"] if before < one["step"] <= line["step"] and name in one]
            before = line["step"]
            if mine and name in line:
                lines.append([before, round(sum(mine) / len(mine), 4), line[name]])
        if lines:
            found[name] = lines
    return found


if __name__ == "__main__":
    sys.exit(main())
