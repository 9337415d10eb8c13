"""nanochat's side of pretrain_text.py: its model, optimizer, loader and schedule out of a checkout of nanochat.

Model, optimizer and loader are the checkout's own code. Its training script cannot be imported, so the numbers below
are those of scripts/base_train.py (2026). Needed: a checkout of github.com/karpathy/nanochat with `GPT.setup_optimizer`
and `tokenizing_distributed_data_loader_with_state_bos_bestfit`.
"""

import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.pretrain_nanochat_attention import take_kernel
from benchmarks.pretrain_text_runs import Given, Run, Scale, Steps, bits_per_byte, held_out, parameters_of

RATES = {"unembedding_lr": 0.008, "embedding_lr": 0.3, "scalar_lr": 0.5, "matrix_lr": 0.02}
DECAY, RATIO = 0.28, 12
"""Weight decay of matrices, and tokens per parameter, both at depth 12, from where all is scaled."""
BATCH = 2**19
HORIZON = RATIO * (12 * 12 * 768**2 + 32768 * 768)
"""Tokens of a step, and of the training, at depth 12."""
WARMUP, WARMDOWN, FINAL = 40, 0.65, 0.05
SEED = 42
DOCUMENTS = 128
"""Handed to its loader at a time."""
ROWS = 8
"""Of one pass over held-out text."""


def train(run: Run, seed: int, given: Given) -> dict[str, Any]:
    """Train on the shards' tokens, as scripts/base_train.py does with --num-iterations and --total-batch-size."""
    from data_curation.shards import Shards
    from training.model import bytes_of_tokens

    assert given.peer is not None
    sys.path.insert(0, str(given.peer))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    attention = take_kernel(device, given.peer_flash4)
    text, scale, width = given.text, given.scale, run.width // given.scale.shorter
    shards = Shards(text / "shards")
    torch.manual_seed(SEED + seed)
    torch.set_float32_matmul_precision("high")
    model = _model(width, scale, shards.index.vocabulary, "L" if attention == "sdpa" else "SSSL", device)
    recipe = Recipe(scale.tokens_per_step or batch_of(given.tokens), given.tokens, model)
    loader, taken = _loader(shards, min(scale.micro_batch, recipe.batch) // width, width, device)
    steps = _steps(model, recipe, loader)
    windows = held_out(text / "heldout", width, scale.held_out)
    reader = Reader(model.eval(), width, shards.index.separator, device)
    found = bits_per_byte(windows, reader.read, bytes_of_tokens(text / "tokenizer"))
    looked_up = [module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    return steps.found() | {
        "heldout": found, "heldout_bfloat16": found, "skipped": 0, "epochs": round(taken[0] / shards.index.tokens, 3),
        "kernel": attention, "learning_rate": recipe.rate * RATES["matrix_lr"], "weight_decay": recipe.decay,
        "warmup_steps": WARMUP, "parameters": parameters_of(model, *looked_up),
    }  # fmt: skip


def _steps(model: Any, recipe: "Recipe", loader: Iterator[Any]) -> Steps:
    """All steps; the next rows are made while the GPU works."""
    compiled: Any = torch.compile(model, dynamic=False)
    optimizer = recipe.optimizer(model)
    x, y, _ = next(loader)
    passes, steps = recipe.batch // x.numel(), Steps(recipe.batch)
    for step in range(recipe.steps):
        losses: list[Tensor] = []
        for _ in range(passes):
            loss = compiled(x, y)
            losses.append(loss.detach())
            (loss / passes).backward()
            x, y, _ = next(loader)
        recipe.set(optimizer, step)
        optimizer.step()
        model.zero_grad(set_to_none=True)
        steps.add(float(torch.stack(losses).mean()))
    return steps


def batch_of(tokens: int) -> int:
    """Its rule for a training of so many tokens (B ~ D^0.383, arXiv 2505.13738), a power of two."""
    return 2 ** round(math.log2(BATCH * (tokens / HORIZON) ** 0.383))


def _model(width: int, scale: Scale, vocabulary: int, pattern: str, device: torch.device) -> Any:
    from nanochat.gpt import GPT, GPTConfig  # type: ignore[reportMissingImports]

    config = GPTConfig(
        sequence_len=width, vocab_size=vocabulary, n_layer=scale.layers, n_head=scale.heads,
        n_kv_head=scale.heads, n_embd=scale.hidden, window_pattern=pattern,
    )  # fmt: skip
    with torch.device("meta"):
        model = GPT(config)
    model.to_empty(device=device)
    model.init_weights()
    return model


class Recipe:
    """Rates, momentum and weight decay of each step, scaled from depth 12 to this model and batch."""

    def __init__(self, batch: int, tokens: int, model: Any) -> None:
        counts = model.num_scaling_params()
        horizon = RATIO * (counts["transformer_matrices"] + counts["lm_head"])
        self.batch, self.steps = batch, tokens // batch
        self.rate = math.sqrt(batch / BATCH)
        self.decay = DECAY * self.rate * HORIZON / horizon

    def optimizer(self, model: Any) -> Any:
        """Its own, for matrices and everything else."""
        rates = {name: rate * self.rate for name, rate in RATES.items()}
        return model.setup_optimizer(**rates, weight_decay=self.decay)

    def set(self, optimizer: Any, step: int) -> None:
        """What its script sets before each step."""
        down = round(WARMDOWN * self.steps)
        left = (self.steps - step) / down if step > self.steps - down else 1.0
        rate = (step + 1) / WARMUP if step < WARMUP else left + (1 - left) * FINAL
        if step < 400:
            momentum = 0.85 + (0.97 - 0.85) * step / 400
        else:
            momentum = 0.97 - (0.97 - 0.90) * max(0, step - (self.steps - down)) / down
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * rate
            if group["kind"] == "muon":
                group["momentum"] = momentum
                group["weight_decay"] = self.decay * (1 + math.cos(math.pi * step / self.steps)) / 2


def _loader(shards: Any, rows: int, width: int, device: torch.device) -> tuple[Iterator[Any], list[int]]:
    """Its best-fit rows of our documents, which go in at most a row long; and the tokens it has taken so far."""
    from nanochat import dataloader  # type: ignore[reportMissingImports]

    given = [0]

    def documents(*_: Any) -> Iterator[Any]:
        for epoch in itertools.count(1):
            some: list[list[int]] = []
            for number in range(len(shards)):
                tokens = shards.tokens(number)[:-1].tolist()
                some += [tokens[at : at + width] for at in range(0, len(tokens), width)]
                while len(some) >= DOCUMENTS:
                    given[0] += sum(map(len, some[:DOCUMENTS]))
                    yield some[:DOCUMENTS], (0, 0, epoch)
                    some = some[DOCUMENTS:]

    class Tokens:
        """Stands for its tokenizer: the documents are tokens already."""

        def get_bos_token_id(self) -> int:
            return shards.index.separator

        def encode(self, some: list[list[int]], prepend: int, num_threads: int) -> list[list[int]]:
            return [[prepend, *tokens] for tokens in some]

    dataloader._document_batches = documents
    make = dataloader.tokenizing_distributed_data_loader_with_state_bos_bestfit
    return make(Tokens(), rows, width, "train", device=device), given


class Reader:
    """Losses of a model of nanochat on windows, each in a row of its own after the token that begins a document."""

    def __init__(self, model: Any, width: int, begin: int, device: torch.device) -> None:
        self.model, self.width, self.begin, self.device = model, width, begin, device

    @torch.no_grad()
    def read(self, windows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """For each window of n tokens the n - 1 losses in nats."""
        found: list[np.ndarray] = []
        for first in range(0, len(windows), ROWS):
            some = windows[first : first + ROWS]
            tokens = np.full((ROWS, self.width), self.begin)
            targets = np.full((ROWS, self.width), -1)
            for row, window in enumerate(some):
                tokens[row, 1 : len(window)] = window[:-1]
                targets[row, 1 : len(window)] = window[1:]
            x, y = (torch.from_numpy(one).to(self.device) for one in (tokens, targets))
            losses = self.model(x, y, loss_reduction="none").view(ROWS, self.width).double().cpu().numpy()
            found += [losses[row, 1 : len(window)] for row, window in enumerate(some)]
        return found
