"""Rows of what pretrain_text.py measured, its results file and its section of RESULTS.md.

python -m benchmarks.pretrain_text_report FILE.jsonl --date 2026-11-26 --commit HASH                  (on any machine)
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.measure import FOLDER, row, with_section

PEER = "nanochat"
OURS = ("2k", "2k-muon")
SEEDS = 3
"""Of bfloat16, whose spread 8 bits are held against."""
NOTE = """\
Trainings of the d20 model on real text, documents of Debian's packages (manuals, dictionaries, some C), each in a
process of its own on one GPU; every document is read once. Ours is training.step.Trainer on shards, packed rows,
attention inside documents, a linear decay after a warm-up of a tenth; batch and learning rate were not searched. At 8k
they are those of DeepSeek LLM's rule, whose 158 steps are far too few for AdamW: both types of numbers learn little,
and alike; at 2k they are nearer to Step Law's. Held-out: bits per UTF-8 byte of whole held-out documents, in windows of
the training's rows, each token but a document's first predicted once; its error is the standard error over documents.
Tokens per second leave out the first steps and what was compiled; seconds are steps at that speed.

nanochat is its own model, optimizer and loader at depth 20, with the numbers of its scripts/base_train.py and the batch
that its rule gives for so few tokens. What differs: its model has value embeddings (as many parameters again as its
layers have), squared ReLU, gates and a cap on logits, and no weights in its norms, at nearly as many parameters of
matrix products; three of four layers see 512 tokens back; its rows begin with a document and mix documents; what fits
no row is cut off, so that its loader takes more documents for as many tokens; long documents go in by rows of 2,048.
Its attention, FlashAttention-3 from a hub, is FlashAttention-4 here, or torch's with full windows (`kernel` sdpa)."""
Line = dict[str, Any]


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="what --out of benchmarks.pretrain_text wrote")
    parser.add_argument("--date", required=True)
    parser.add_argument("--commit", required=True)
    asked = parser.parse_args()
    measured = [json.loads(line) for line in asked.file.read_text().splitlines()]
    whole = {"date": asked.date, "commit": asked.commit, **summary(measured), "measured": measured}
    (FOLDER / "results" / "pretrain_text.json").write_text(json.dumps(whole, indent=1) + "\n")
    page = FOLDER / "RESULTS.md"
    page.write_text(with_section(page.read_text(), "## pretrain_text.py: training on real text", _section(whole)))


def summary(measured: list[Line]) -> dict[str, Any]:
    """Rows, and what else is to be known of them."""
    by_run = {(one["run"], one["seed"]): one for one in measured}
    rows, agreement = _eight_bits(by_run)
    for name in OURS:
        rows += _against_peer(name, by_run)
    agreement["parameters, all and of matrix products"] = {
        one["run"]: [one["parameters"][key] for key in ("all", "products")] for one in measured if one["seed"] == 0
    }
    agreement["times that the documents were read"] = {
        f"{name}:{seed}": one["epochs"] for (name, seed), one in by_run.items()
    }
    return {"rows": rows, "agreement": agreement}


def _eight_bits(by_run: dict[tuple[str, int], Line]) -> tuple[list[Line], dict[str, Any]]:
    """8 bits beside the mean of bfloat16's seeds; met inside their range, widened by the range on both sides."""
    seeds = [by_run["bf16", seed]["heldout"]["value"] for seed in range(SEEDS) if ("bf16", seed) in by_run]
    low = by_run.get(("fp8", 0))
    if low is None or not seeds:
        return [], {}
    value, plain = low["heldout"]["value"], by_run.get(("bf16", 0), low)
    rows = [row("8 bits / bfloat16, d20 8k", low["tokens_per_second"], plain["tokens_per_second"], "tokens/s")]
    if len(seeds) < SEEDS:
        return rows, {}
    spread = max(seeds) - min(seeds)
    limits = [min(seeds) - spread, max(seeds) + spread]
    held = _row("8 bits / mean of three seeds, held-out", value, sum(seeds) / len(seeds), limits[1])
    held["met"] = limits[0] <= value <= limits[1]
    agreement = {
        "held-out of bfloat16's seeds": [round(one, 5) for one in seeds],
        "of 8 bits, read in 8 bits and in bfloat16": [
            round(low[name]["value"], 5) for name in ("heldout", "heldout_bfloat16")
        ],
        "range that 8 bits may lie in, the seeds' own widened by its size": [round(one, 5) for one in limits],
        "8 bits inside the seeds' own range": min(seeds) <= value <= max(seeds),
        "last tenth's training loss, bfloat16:0 and 8 bits": [plain["loss"], low["loss"]],
    }
    return [held, *rows], agreement


def _against_peer(name: str, by_run: dict[tuple[str, int], Line]) -> list[Line]:
    ours, peer = by_run.get((name, 0)), by_run.get((PEER, 0))
    if ours is None or peer is None:
        return []
    value = ours["heldout"]["value"]
    rows = [
        row(f"{name} / {PEER}", ours["tokens_per_second"], peer["tokens_per_second"], "tokens/s"),
        _row(f"{name} / {PEER}, same tokens, held-out", value, peer["heldout"]["value"], None),
    ]
    longer = by_run.get((f"{PEER}-as-long", 0))
    if longer is not None and longer["settings"]["as_long"] == name:
        title = f"{name} / {PEER}, same seconds ({ours['seconds']:.0f} and {longer['seconds']:.0f}), held-out"
        rows.append(_row(title, value, longer["heldout"]["value"], None))
    return rows


def _row(name: str, ours: float, other: float, goal: float | None) -> Line:
    """Four digits: the differences are small."""
    met = None if goal is None else ours <= goal
    numbers = {"ours": round(ours, 4), "other": round(other, 4), "goal": None if goal is None else round(goal, 4)}
    return {"name": name, **numbers, "unit": "bits/byte", "ratio": round(other / ours, 4), "met": met}


def _section(whole: dict[str, Any]) -> str:
    device = whole["measured"][0]
    lines = [
        f"{whole['date']}, commit {whole['commit'][:12]}, {device['device']}, torch {device['torch']}.", "", NOTE, "",
        "| what | ours | other | unit | ratio | goal | met |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {one['name']} | {one['ours']:,g} | {one['other']:,g} | {one['unit']} | {one['ratio']:g} "
        f"| {'' if one['goal'] is None else format(one['goal'], 'g')} | {_met(one['met'])} |"
        for one in whole["rows"]
    ]
    lines += [
        "",
        "| run, seed | tokens | a step | steps | peak rate | tokens/s | seconds | compiling, s | last tenth's loss "
        "| held-out bits/byte | GiB | kernel |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_line(one) for one in whole["measured"]]
    lines += ["", "What differed:", ""]
    lines += [f"- {name}: {json.dumps(value)}" for name, value in whole["agreement"].items()]
    return "\n".join(lines)


def _met(value: bool | None) -> str:
    return {None: "", True: "yes", False: "no"}[value]


def _line(one: Line) -> str:
    held = one["heldout"]
    cells = [
        f"{one['run']}, {one['seed']}", f"{one['tokens']:,}", f"{one['tokens_per_step']:,}", str(one["steps"]),
        f"{one['learning_rate']:g}", f"{one['tokens_per_second']:,}", f"{one['seconds']:.0f}",
        f"{one['compile_seconds']:.0f}", f"{one['loss']:.3f}", f"{held['value']:.4f} ± {held['standard_error']:.4f}",
        f"{one['peak_gib']}", one["kernel"],
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
