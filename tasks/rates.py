"""Measured rates by which a stage that was never made here is estimated, each with where it comes from.

Curation: the pages of benchmarks/results/curation.json, Debian documentation of 12 kB of HTML and 4 kB of text a page
(13,476 pages: 165 MB of HTML, 49 MB as .warc.gz, 54.7 MB of text). Other pages differ most in how much of their HTML is
text: `tokenmill plan --probe` measures that on one's own sources.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """What a curation stage does with its bytes."""

    speed: float
    """Bytes that one worker takes in a second."""
    start: float
    """Seconds before it begins: a process, its imports and tables."""
    kept: float
    """Bytes of text that it makes of each byte it takes; 1 where it drops nothing."""
    written: float = 0.45
    """Bytes on disk for each byte of text made: zstd Parquet, decisions and records included."""


CURATION = {
    # 1,635 pages a second of 12.2 kB; text 54.7 MB of 165 MB of HTML.
    "extract": Rate(20e6, 1.0, 0.35),
    # 0.78 ms a page of 4.06 kB; "every rule's score" adds a quarter. The demo keeps 0.37 of the bytes.
    "clean": Rate(4e6, 1.5, 0.4),
    # 0.077 ms a page of 4.06 kB. A tenth of the pages are near duplicates of others.
    "dedup": Rate(50e6, 1.5, 0.9),
    # 0.49 ms a page of 4.06 kB.
    "decontaminate": Rate(8e6, 1.5, 1.0),
}
ROWS_KEPT = 1.0
"""In place of extract's `kept` for sources that hold text already: JSONL, Parquet, a hub."""
EXPANSION = {".gz": 3.4, ".zst": 4.0, ".parquet": 2.5}
"""Bytes of content in a byte of a compressed file, by suffix: 165 MB of HTML in 49 MB of .warc.gz."""
PAGE_BYTES = 15_000
"""Bytes of one fetched page (web-packages), before they are fetched."""
CONVERSATION_BYTES = 500
"""UTF-8 bytes of one conversation (the demo's 904 chats hold 471 kB)."""
DIALOGUES = Rate(10e6, 1.0, 0.3, 0.2)
"""4.9 MB of sources and 17,680 generated tasks in 1.3 s, of which most is the start (the demo)."""
EXERCISE_BYTES = 40
"""On disk, of a generated task."""

TRAINER = 3.3e6
"""Bytes a second of BPE training, all cores (30 s for 100 MB, as `tokenizer.sample_bytes` says)."""
READ = 100e6
"""Bytes a second of text read from Parquet, which the tokenizer does once to draw its sample."""
ENTRY_BYTES = 65
"""On disk, of an entry of tokenizer.json (4,096 entries: 265 kB)."""
BYTES_PER_TOKEN = 3.8
"""UTF-8 bytes of a token: 3.6 with the demo's 4,096 entries, about 4.2 with 32,768."""
TOKENISE = 14e6
"""Tokens a second and worker of the whole stage `shard` (tokens.json: 14.5 million)."""

H100_FLOPS = 989.4e12
"""bfloat16 without sparsity, NVIDIA's data sheet."""
GPU_SHARE = 0.5
"""Of that in `pretrain`: packed documents at 438M parameters reach 0.51 (pretrain.json)."""
GPU_TRAINER_SHARE = 0.2
"""Of that with transformers' and TRL's trainers: 50.8k tokens/s at 438M parameters and rows of 8k, on the same GPU."""
CPU_FLOPS = 4e10
"""Of one CPU thread in float32, 1M to 3M parameters: 12,000 and 4,200 tokens a second on two cores."""
START = 4.5
"""Seconds of a training stage before it begins: torch, transformers, TRL (evaluate and publish of the demo)."""
STEP_SECONDS, LAYER_SECONDS = 0.003, 0.001
"""Of one generated token of a batch, beside the products: transformers' `generate` calls every layer from Python
(the demo's `pairs`: 4.7 ms with two layers)."""
BATCH = 64
"""Answers generated at a time."""
PROMPT_TOKENS = 20
"""Of a task's prompt and its control tokens (the demo's instruct: 457,578 tokens in 16,904 conversations)."""
PAIRED = 0.4
"""Pairs for each prompt and `pairs_per_prompt`: the others lack a right or a wrong answer (the demo: 718 of 1,800)."""
