"""Training speed: ours against transformers' Trainer with Liger kernels and torchtitan, and one GPU against two.

python -m benchmarks.pretrain --rows d20-8k,d20-8k-trainer --minutes 8 --out FILE.json        (--dry: tiny, on a CPU)

Tokens per second are over REPEATS times STEPS steps after the warm-up, optimizer included. MFU = (6 N + 6 L H D T')
tokens per second / 989.4 TFLOP/s: N matmul parameters, the causal half of attention counted once, T' the mean of what
a token's document holds of it (T for rows of one document). The floor of a row is what its matrix products take at the
sustained speed of a large product, and its attention alone: nothing else of a step is in it.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.pretrain_engines import Clock, hugging_face, ours, seconds_of, synchronize
from benchmarks.pretrain_rows import PEERS, ROWS, Row
from benchmarks.pretrain_torchtitan import torchtitan

PEAK = 989.4e12
"""Dense bfloat16 FLOP/s of an H100 or H200 SXM, as the vendor states them."""


def main() -> None:
    """Run the rows, each in a process of its own; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rows", default=",".join(ROWS), help="in order; what does not fit into the minutes is left out"
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--row-seconds", type=float, default=100.0, help="a row that takes longer is ended")
    parser.add_argument("--out", type=Path, default=Path("pretrain.json"))
    parser.add_argument("--torchtitan", type=Path, help="a folder of packages that its rows alone import")
    parser.add_argument("--dry", action="store_true", help="tiny rows, on a CPU where there is no GPU")
    parser.add_argument("--one", help="run this row in this process")
    parser.add_argument("--product", type=float, default=0.0, help="with --one: TFLOP/s of a large product")
    parser.add_argument("--json", action="store_true", help="print the last line only")
    args = parser.parse_args()
    if args.one == "product":
        print(json.dumps({"product_tflops": product()}))
    elif args.one:
        row = _tiny(ROWS[args.one]) if args.dry else ROWS[args.one]
        found = measure(args.one, row, args.product)
        if os.environ.get("RANK", "0") == "0":
            print(json.dumps(found))
    else:
        _all(args)


def _all(args: argparse.Namespace) -> None:
    end = time.monotonic() + 60 * args.minutes
    ceiling = 0.0 if args.dry else _process(args, "product", 0.0).get("product_tflops", 0.0)
    found: list[dict[str, Any]] = []
    for name in args.rows.split(","):
        if time.monotonic() + 45 > end:
            found.append({"row": name, "error": "left out: no time"})
            continue
        found.append(_process(args, name, ceiling))
        if not args.json:
            short = {
                key: value for key, value in found[-1].items() if key not in ("settings", "device", "torch", "kernels")
            }
            print(json.dumps(short), flush=True)
        args.out.write_text(json.dumps({"product_tflops": ceiling, "rows": found}, indent=1))
    print(json.dumps(_summary(found)))


def _process(args: argparse.Namespace, name: str, ceiling: float) -> dict[str, Any]:
    ranks = ROWS[name].ranks if name in ROWS else 1
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    command = [sys.executable, *launcher, "-m", "benchmarks.pretrain", "--one", name]
    command += ["--product", str(ceiling), *["--dry"] * args.dry]
    environment = dict(os.environ)
    if args.torchtitan and name in ROWS and ROWS[name].engine == "torchtitan":
        environment["PYTHONPATH"] = os.pathsep.join([str(args.torchtitan), environment.get("PYTHONPATH", "")])
    begin = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=args.row_seconds, env=environment)
        lines, failure = done.stdout.strip().splitlines(), done.stderr[-3000:]
        row = json.loads(lines[-1]) if done.returncode == 0 else {"row": name, "error": failure}
    except subprocess.TimeoutExpired as error:
        row = {"row": name, "error": f"ended after {args.row_seconds} s: {str(error.stderr)[-2000:]}"}
    return row | {"process_seconds": round(time.monotonic() - begin, 1)}


def _summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    speeds = {row["row"]: row["tokens_per_second"] for row in found if "error" not in row}
    rows: list[dict[str, Any]] = []
    for name, peer, goal in ((name, *one) for name, several in PEERS.items() for one in several):
        one, other = speeds.get(name), speeds.get(peer)
        ratio = round(one / other, 3) if one and other else None
        met = ratio >= goal if ratio and goal else None
        rows.append({
            "name": f"{name} / {peer}", "ours": one, "other": other, "unit": "tokens/s", "ratio": ratio, "goal": goal,
            "met": met,
        })  # fmt: skip
    losses = {row["row"]: row["loss"] for row in found if "error" not in row}
    return {"rows": rows, "agreement": {"first and last loss of the same model on the same tokens": losses}}


def _tiny(row: Row) -> Row:
    return replace(row, **Row.TINY, document=row.document and 60, then=row.then and 512)


def measure(name: str, row: Row, ceiling: float) -> dict[str, Any]:
    """Tokens per second of one row in this process."""
    import torch

    gpu = torch.cuda.is_available()
    if not gpu:
        torch.set_num_threads(1)
    clock = Clock(row)
    engines = {"ours": ours, "trainer": hugging_face, "torchtitan": torchtitan}
    step = engines[row.engine](row, clock)
    speed = sorted(clock.speeds)[len(clock.speeds) // 2]
    attention = row.layers * row.heads * 128 * row.context
    found: dict[str, Any] = {
        "row": name, "tokens_per_second": round(speed), "all": [round(one) for one in clock.speeds],
        "mfu": round(speed * (6 * row.parameters + 6 * attention) / PEAK, 4),
        "first_step_seconds": clock.first_seconds, "loss": clock.losses,
    }  # fmt: skip
    if step is not None:
        found |= _floor(row, speed, ceiling, step.attention) | {"switch_seconds": step.switch_seconds}
        found["kernels"] = _slowest(step.once) if gpu else []
    return found | {
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1) if gpu else None,
        "device": torch.cuda.get_device_name() if gpu else "cpu", "torch": torch.__version__, "settings": asdict(row),
    }  # fmt: skip


def _floor(row: Row, speed: float, ceiling: float, attention: float) -> dict[str, Any]:
    """Tokens per second if a step were its matrix products and its attention (seconds of one layer) alone."""
    if not ceiling:
        return {}
    seconds = 6 * row.parameters * row.tokens / (ceiling * 1e12) + row.layers * attention
    floor = row.tokens / seconds
    return {"floor_tokens_per_second": round(floor), "of_floor": round(speed / floor, 3)}


def product(size: int = 8192, seconds: float = 2.5) -> float:
    """Sustained TFLOP/s of a large bfloat16 product of random numbers."""
    import torch

    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = int(seconds * 7e14 / (2 * size**3))
    return round(2 * size**3 / seconds_of(lambda: a @ b, times) / 1e12, 1)


def _slowest(step: Any, number: int = 40) -> list[list[Any]]:
    """Name, milliseconds and calls of the kernels that take the most of one step."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as found:
        step()
        synchronize()
    kernels = sorted(found.key_averages(), key=lambda event: -event.device_time_total)[:number]
    return [[event.key[:90], round(event.device_time_total / 1e3, 2), event.count] for event in kernels]


if __name__ == "__main__":
    main()
