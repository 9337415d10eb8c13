"""Short trainings on real text: 8 bits against three seeds of bfloat16, and our recipe against nanochat's.

python -m benchmarks.pretrain_text --text FOLDER --runs bf16:0,bf16:1,bf16:2,fp8:0 --out FILE.jsonl
python -m benchmarks.pretrain_text --text FOLDER --runs 2k-muon:0,nanochat:0,nanochat-as-long:0 --peer nanochat=DIR ...

NAME:SEED, each in a process of its own; the names are those of RUNS in pretrain_text_runs.py. FOLDER (or a .tar.xz of
it) is what benchmarks.pretrain_text_make makes. Results are added to FILE; what it has already is left out, so that
the runs may come from several calls. DIR is a checkout of github.com/karpathy/nanochat. --dry: tiny, on a CPU.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.pretrain_text_report import PEER, summary
from benchmarks.pretrain_text_runs import RUNS, TINY, Given, Run, Scale, one

ORDER = "bf16:0,fp8:0,bf16:1,bf16:2,2k:0,2k-muon:0,nanochat:0,nanochat-as-long:0"
DRY_TOKENS = 40 * TINY.tokens_per_step
LINE = "@result "


def main() -> int:
    """Run what is asked for; 1 if something failed or a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="folder with shards, heldout, tokenizer, or a .tar.xz")
    parser.add_argument("--runs", default=ORDER, help="NAME:SEED,...; what does not fit into the minutes is left out")
    parser.add_argument("--out", type=Path, default=Path("pretrain_text.jsonl"))
    parser.add_argument("--tokens", type=int, default=0, help="0: each document once")
    parser.add_argument("--peer", default="", help="nanochat=DIR")
    parser.add_argument("--peer-attention", choices=("flash4", "sdpa"), default="flash4")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--run-seconds", type=float, default=300.0, help="a run that takes longer is ended")
    parser.add_argument("--least-seconds", type=float, default=60.0, help="without so many left none begins")
    parser.add_argument("--micro-batch", type=int, default=Scale.micro_batch, help="tokens of one forward pass")
    parser.add_argument("--dry", action="store_true", help="tiny, on a CPU where there is no GPU")
    parser.add_argument("--one", help="run this in this process")
    parser.add_argument("--json", action="store_true", help="print the last line only")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tokenmill-pretrain-text-") as folder:
        asked.text = _unpacked(asked.text, Path(folder) / "text")
        if asked.one:
            print(LINE + json.dumps(_one(asked, Path(folder))))
            return 0
        failed = _all(asked)
    found = summary(lines(asked.out))
    print(json.dumps(found))
    missed = not asked.dry and any(row["met"] is False for row in found["rows"])
    return 1 if missed or failed else 0


def lines(path: Path) -> list[dict[str, Any]]:
    """Results so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _unpacked(text: Path, folder: Path) -> Path:
    if text.is_dir():
        return text.resolve()
    folder.mkdir()
    subprocess.run(["tar", "-xJf", str(text), "-C", str(folder)], check=True)
    return folder


def _all(asked: argparse.Namespace) -> bool:
    """All runs that fit; whether one failed."""
    end, failed = time.monotonic() + 60 * asked.minutes, False
    for name in asked.runs.split(","):
        done = lines(asked.out)
        if any(f"{one['run']}:{one['seed']}" == name for one in done):
            continue
        begin = time.monotonic()
        left = min(asked.run_seconds, end - begin)
        tokens, words = _tokens(asked, RUNS[name.partition(":")[0]], done)
        if words or left < asked.least_seconds:
            _say(asked, f"{name}: left out: {words or 'no time'}")
            failed = failed or bool(words and not asked.dry)
            continue
        found, words = _process(asked, name, tokens, left)
        if found:
            found["process_seconds"] = round(time.monotonic() - begin, 1)
            with asked.out.open("a") as out:
                out.write(json.dumps(found) + "\n")
        failed = failed or bool(words)
        kept = {key: value for key, value in found.items() if key not in ("curve", "settings", "scale")}
        _say(asked, f"{name}: {words or json.dumps(kept)}")
    return failed


def _say(asked: argparse.Namespace, words: str) -> None:
    if not asked.json:
        print(words, flush=True)


def _tokens(asked: argparse.Namespace, run: Run, done: list[dict[str, Any]]) -> tuple[int, str]:
    """How many a run gets, or why it cannot be."""
    if run.engine == "nanochat" and not asked.peer:
        return 0, "needs --peer nanochat=DIR"
    if run.dtype == "float8" and asked.dry and not _gpu():
        return 0, "8 bits need a GPU of compute capability 9.0 or more"
    tokens = asked.tokens or (DRY_TOKENS if asked.dry else _of_text(asked.text))
    if not run.as_long:
        return tokens, ""
    found = {one["run"]: one for one in done if one["seed"] == 0}
    if not {run.as_long, run.same} <= set(found):
        return 0, f"needs the seconds of {run.as_long}:0 and the speed of {run.same}:0"
    return round(found[run.as_long]["seconds"] * found[run.same]["tokens_per_second"]), ""


def _of_text(text: Path) -> int:
    return int(json.loads((text / "shards" / "index.json").read_text())["tokens"])


def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _process(asked: argparse.Namespace, name: str, tokens: int, seconds: float) -> tuple[dict[str, Any], str]:
    """What a run measured, and why it failed, if it did."""
    command = [sys.executable, "-m", "benchmarks.pretrain_text", "--one", name, "--text", str(asked.text)]
    command += ["--tokens", str(tokens), "--peer", asked.peer, "--peer-attention", asked.peer_attention]
    command += ["--micro-batch", str(asked.micro_batch), *["--dry"] * asked.dry]
    # nanochat's script sets the first one itself; compiling for a CPU takes longer than a try.
    environment = os.environ | {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    if asked.dry and not _gpu():
        environment["TORCHDYNAMO_DISABLE"] = "1"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=environment)
    except subprocess.TimeoutExpired as error:
        return {}, f"ended after {seconds:.0f} s: {str(error.stderr)[-2000:]}"
    results = [line.removeprefix(LINE) for line in done.stdout.splitlines() if line.startswith(LINE)]
    return (json.loads(results[-1]), "") if results else ({}, f"failed: {done.stderr[-4000:]}")


def _one(asked: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    import torch

    if asked.dry and not torch.cuda.is_available():
        torch.set_num_threads(1)
    name, _, seed = asked.one.partition(":")
    scale = TINY if asked.dry else Scale(micro_batch=asked.micro_batch)
    peer = Path(asked.peer.removeprefix(f"{PEER}=")).resolve() if asked.peer else None
    given = Given(asked.text, asked.tokens, scale, scratch, peer, asked.peer_attention == "flash4")
    return one(name, int(seed), given)


if __name__ == "__main__":
    sys.exit(main())
