"""The rows of benchmarks/pretrain.py: models, lengths, kernels, and what is compared with what."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar


@dataclass(frozen=True)
class Row:
    """One configuration of the benchmark."""

    TINY: ClassVar[dict[str, Any]] = {
        "hidden": 64, "layers": 2, "heads": 2, "kv_heads": 1, "inner": 64, "rows": 2, "width": 256, "vocabulary": 512,
    }  # fmt: skip

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    inner: int
    rows: int
    width: int
    vocabulary: int = 32768
    engine: str = "ours"
    kernel: str = "auto"
    fusion: str = "auto"
    float8: bool = False
    """Products of layers in 8 bits."""
    recompute: str = "none"
    ranks: int = 1
    """GPUs, with FSDP."""
    context_ranks: int = 1
    """So many of them share each row."""
    document: int = 0
    """Mean tokens of a document; 0: every row is one."""
    fully_shard: bool = False
    """Of torchtitan alone: FSDP2 on a mesh of one GPU does the mixed precision, else autocast."""
    then: int = 0
    """Afterwards rows of this width in the same process: how long does the first step take?"""

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.rows * self.width

    @property
    def parameters(self) -> int:
        """Matmul parameters: layers and output, no embeddings."""
        attention = self.hidden * 128 * 2 * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.inner) + self.vocabulary * self.hidden

    @cached_property
    def documents(self) -> tuple[Any, Any]:
        """Document numbers and positions of one batch, [rows, width]; lengths are exponentially distributed."""
        import numpy as np

        random = np.random.default_rng(0)
        documents = np.zeros((self.rows, self.width), dtype=np.int64)
        if self.document:
            for line in documents:
                ends = np.cumsum(np.maximum(16, random.exponential(self.document, 8 + 4 * self.width // self.document)))
                line[:] = np.searchsorted(ends, np.arange(self.width), side="right")
        new = np.diff(documents, axis=1, prepend=-1) != 0
        here = np.arange(self.width)
        return documents, here - np.maximum.accumulate(np.where(new, here, 0), axis=1)

    @property
    def context(self) -> float:
        """Mean over tokens of the length of the token's document."""
        import numpy as np

        lengths = np.concatenate([np.bincount(line) for line in self.documents[0]])
        return float((lengths**2).sum() / lengths.sum())


D20 = Row(hidden=1280, layers=20, heads=10, kv_heads=10, inner=3456, rows=8, width=8192)
B1 = Row(hidden=2048, layers=18, heads=16, kv_heads=8, inner=5632, rows=4, width=8192)
PACKED = replace(D20, document=1500)
TRAINER = {"engine": "trainer", "kernel": "sdpa"}
TITAN = {"engine": "torchtitan", "kernel": "sdpa"}
ROWS = {
    "d20-8k": D20,
    "d20-8k-trainer": replace(D20, rows=4, **TRAINER),
    "d20-8k-packed": PACKED,
    "d20-8k-packed-trainer-flash4": replace(PACKED, rows=1, width=32768, engine="trainer", kernel="flash_attention_4"),
    "d20-8k-sdpa": replace(D20, kernel="sdpa"),
    "d20-8k-packed-flex": replace(PACKED, kernel="flex"),
    "d20-8k-packed-trainer-mask": replace(PACKED, rows=1, **TRAINER),
    "d20-2k": replace(D20, rows=32, width=2048),
    "1b-8k": B1,
    "1b-8k-trainer": replace(B1, **TRAINER),
    "d20-32k": replace(D20, rows=2, width=32768),
    "d20-8k-packed-flash2": replace(PACKED, kernel="flash2"),
    "d20-2k-then-8k": replace(D20, rows=32, width=2048, then=8192),
    "d20-8k-trainer-flash4": replace(D20, rows=4, engine="trainer", kernel="flash_attention_4"),
    "d20-8k-triton": replace(D20, fusion="triton"),
    "d20-8k-packed-triton": replace(PACKED, fusion="triton"),
    "d20-2k-triton": replace(D20, rows=32, width=2048, fusion="triton"),
    "1b-8k-triton": replace(B1, fusion="triton"),
    "d20-8k-compiled": replace(D20, fusion="compiled"),
    "d20-8k-packed-compiled": replace(PACKED, fusion="compiled"),
    "d20-2k-compiled": replace(D20, rows=32, width=2048, fusion="compiled"),
    "1b-8k-compiled": replace(B1, fusion="compiled"),
    "1b-8k-fp8": replace(B1, float8=True),
    "d20-8k-fp8": replace(D20, float8=True),
    "1b-8k-sdpa": replace(B1, kernel="sdpa"),
    "d20-2k-sdpa": replace(D20, rows=32, width=2048, kernel="sdpa"),
    "d20-32k-sdpa": replace(D20, rows=2, width=32768, kernel="sdpa"),
    "1b-32k": replace(B1, rows=1, width=32768),
    "d20-128k": replace(D20, rows=1, width=131072, recompute="auto"),
    "1b-128k": replace(B1, rows=1, width=131072, recompute="auto"),
    "d20-8k-x2": replace(D20, rows=16, ranks=2),
    "d20-128k-x2": replace(D20, rows=1, width=131072, recompute="attention", ranks=2, context_ranks=2),
    "1b-128k-x2": replace(B1, rows=1, width=131072, recompute="attention", ranks=2, context_ranks=2),
    "1b-128k-full": replace(B1, rows=1, width=131072, recompute="full"),
    "d20-8k-torchtitan": replace(D20, rows=4, **TITAN),
    "d20-8k-torchtitan-fsdp": replace(D20, rows=4, fully_shard=True, **TITAN),
    "d20-8k-torchtitan-fsdp-8rows": replace(D20, fully_shard=True, **TITAN),
    "d20-2k-torchtitan": replace(D20, rows=16, width=2048, **TITAN),
    "d20-2k-torchtitan-fsdp": replace(D20, rows=16, width=2048, fully_shard=True, **TITAN),
}
PEERS: dict[str, list[tuple[str, float | None]]] = {
    "d20-8k": [
        ("d20-8k-trainer", 1.38),
        ("d20-8k-torchtitan", 1.1),
        ("d20-8k-torchtitan-fsdp", 1.1),
        ("d20-8k-torchtitan-fsdp-8rows", 1.1),
    ],
    "d20-8k-sdpa": [("d20-8k-trainer", None)],
    "d20-8k-packed": [("d20-8k-packed-trainer-flash4", None)],
    "d20-8k-packed-flex": [("d20-8k-packed-trainer-mask", None)],
    "d20-2k": [("d20-2k-torchtitan", 1.1), ("d20-2k-torchtitan-fsdp", 1.1)],
    "1b-8k": [("1b-8k-trainer", None)],
    "1b-8k-fp8": [("1b-8k", 1.2)],
    "d20-8k-fp8": [("d20-8k", None)],
    "d20-8k-x2": [("d20-8k", 1.9)],
    "d20-128k-x2": [("d20-128k", None)],
    "1b-128k-x2": [("1b-128k", None)],
}
"""Ours -> what a user would take instead, or one GPU, and the wanted ratios."""
