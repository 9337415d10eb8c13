"""Attention kernels on one GPU: error against float32, and FLOP/s forward and backward; matrix products beside them.

python -m benchmarks.kernels --kernels sdpa,flex,flash2,flash4        (--errors: no speeds; exit code 1 if one is wrong)
"""

import argparse
import json
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.attention import attend
from training.layout import layout_of

HEADS, KV_HEADS, WIDTH = 16, 8, 128
TOLERANCE = 0.02
"""Relative error against float64 that bfloat16 explains."""


def main() -> None:
    """Print one JSON line per kernel and packing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernels", default="sdpa,flex,flash2,flash4")
    parser.add_argument("--errors", action="store_true", help="errors only")
    args = parser.parse_args()
    right = True
    if not args.errors:
        print(json.dumps({"product_tflops": round(product(), 1), "device": torch.cuda.get_device_name()}), flush=True)
    for kernel in args.kernels.split(","):
        for packed in (False, True):
            try:
                found: dict[str, Any] = {"error": error(kernel, packed)}
                right &= all(one < TOLERANCE for one in found["error"])
                if not args.errors and (kernel != "sdpa" or not packed):  # its mask of 8k x 8k would not fit
                    found["tflops"] = speed(kernel, packed)
            except Exception as failure:
                found, right = {"failed": f"{type(failure).__name__}: {failure}"[:1500]}, False
            print(json.dumps({"kernel": kernel, "packed": packed} | found), flush=True)
    sys.exit(0 if right else 1)


def product(size: int = 8192, seconds: float = 2.5) -> float:
    """Sustained TFLOP/s of a bfloat16 product."""
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    flops = 2 * size**3
    milliseconds = _time(lambda: a @ b, int(seconds / (flops / 7e14)))
    return flops / milliseconds / 1e9


def error(kernel: Any, packed: bool, rows: int = 2, size: int = 1024) -> list[float]:
    """Relative error of the output and the three gradients against float32."""
    documents = _documents(rows, size, packed, 200)
    inputs, gradient = _inputs(rows * size)
    run = _run(kernel, documents)
    found = _with_gradients(run, inputs, gradient)
    exact = _with_gradients(lambda q, k, v: _reference(q, k, v, documents), [one.double() for one in inputs], gradient)
    return [float((a.double() - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)]


def speed(kernel: Any, packed: bool, rows: int = 8, size: int = 8192) -> float:
    """TFLOP/s forward and backward, causal half inside documents counted once."""
    documents = _documents(rows, size, packed, 1500)
    inputs, gradient = _inputs(rows * size)
    run = _run(kernel, documents)
    lengths = np.concatenate([np.bincount(line) for line in documents]).astype(float)
    flops = 3.5 * 4 * (lengths**2).sum() / 2 * HEADS * WIDTH
    return round(flops / _time(lambda: _with_gradients(run, inputs, gradient), 10) / 1e9, 1)


def _run(kernel: Any, documents: np.ndarray) -> Any:
    layout = layout_of(documents, torch.device("cuda"), kernel)
    return torch.compile(lambda q, k, v: attend(q, k, v, layout, kernel, WIDTH**-0.5), dynamic=False)


def _inputs(tokens: int) -> tuple[list[Tensor], Tensor]:
    torch.manual_seed(0)
    shapes = [(tokens, heads, WIDTH) for heads in (HEADS, KV_HEADS, KV_HEADS, HEADS)]
    *inputs, gradient = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for shape in shapes)
    return inputs, gradient


def _with_gradients(run: Any, inputs: list[Tensor], gradient: Tensor) -> list[Tensor]:
    leaves = [one.detach().requires_grad_() for one in inputs]
    out = run(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, gradient.to(out.dtype))]


def _reference(query: Tensor, key: Tensor, value: Tensor, documents: np.ndarray) -> Tensor:
    rows, size = documents.shape
    numbers = torch.from_numpy(documents).to("cuda")
    seen = (numbers[:, None, :, None] == numbers[:, None, None, :]) & torch.ones(
        size, size, device="cuda"
    ).tril().bool()
    query, key, value = (one.view(rows, size, -1, WIDTH).transpose(1, 2) for one in (query, key, value))
    key, value = (one.repeat_interleave(HEADS // KV_HEADS, 1) for one in (key, value))
    scores = (query @ key.transpose(-1, -2) * WIDTH**-0.5).masked_fill(~seen, float("-inf"))
    return (scores.softmax(-1) @ value).transpose(1, 2).reshape(rows * size, HEADS, WIDTH)


def _documents(rows: int, size: int, packed: bool, mean: int) -> np.ndarray:
    if not packed:
        return np.zeros((rows, size), dtype=np.int64)
    random = np.random.default_rng(1)
    ends = np.cumsum(np.maximum(4, random.exponential(mean, (rows, 8 * size // mean))), axis=1)
    return np.stack([np.searchsorted(line, np.arange(size), side="right") for line in ends])


def _time(run: Any, times: int) -> float:
    """Milliseconds of one call."""
    for _ in range(3):
        run()
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(times):
        run()
    stop.record()
    torch.cuda.synchronize()
    return start.elapsed_time(stop) / times


if __name__ == "__main__":
    main()
