"""The two sides of benchmarks/pretrain.py: our decoder and transformers' Trainer, by one clock."""

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.pretrain_rows import Row

REPEATS, STEPS, WARM = 3, 5, 4
LONG_STEPS, LONG_WARM = 1, 1
"""Of rows of 128k tokens, whose steps take seconds."""


@dataclass
class Clock:
    """Takes the times of steps: the first, then some warm ones that do not count, then REPEATS times `steps`."""

    row: Row
    count: int = 0
    begin: float = field(default_factory=time.monotonic)
    first_seconds: float = 0.0
    speeds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def tick(self, loss: float | None = None) -> None:
        """A step is over."""
        self.count += 1
        if loss is not None and (self.count == 1 or self.count == self.ticks):
            self.losses.append(round(loss, 4))
        if self.count == 1:
            self.first_seconds = round(self._since(), 2)
        elif self.count == 1 + self.warm:
            self._since()
        elif self.count > 1 + self.warm and (self.count - 1 - self.warm) % self.steps == 0:
            self.speeds.append(self.steps * self.row.tokens / self._since())

    @property
    def steps(self) -> int:
        """Steps of one repeat."""
        return LONG_STEPS if self.row.width >= 131072 else STEPS

    @property
    def warm(self) -> int:
        """Steps after the first that do not count."""
        return LONG_WARM if self.row.width >= 131072 else WARM

    @property
    def ticks(self) -> int:
        """All steps."""
        return 1 + self.warm + REPEATS * self.steps

    def _since(self) -> float:
        synchronize()
        now = time.monotonic()
        seconds, self.begin = now - self.begin, now
        return seconds


@dataclass
class Ours:
    """What else is known of a row of ours."""

    once: Callable[[], float]
    attention: float
    """Seconds of one layer's attention alone, forward and backward."""
    switch_seconds: float | None


def ours(row: Row, clock: Clock) -> Ours:
    """Run our decoder by the clock."""
    import torch

    from training import optimizers, parallel
    from training.attention import kernel_for

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wanted: Any = row.kernel if device.type == "cuda" else "sdpa"
    kernel: Any = kernel_for(device, wanted, row.width)
    ranks = parallel.connect(device, row.context_ranks)
    model = _model(row, "sdpa")
    decoder = _decoder(row, model, kernel)
    parallel.shard(decoder, ranks, device)
    group = {"params": list(model.parameters()), "lr": 1e-4, "weight_decay": 0.1}
    optimizer = optimizers.Optimizer([group], betas=(0.9, 0.95))
    step = _step(row, decoder, optimizer, ranks)
    clock.begin = time.monotonic()
    for _ in range(clock.ticks):
        clock.tick(step())
    switch = None
    if row.then:
        longer = replace(row, rows=row.tokens // row.then, width=row.then, then=0)
        begin = time.monotonic()
        _step(longer, _decoder(longer, model, kernel), optimizer, ranks)()
        synchronize()
        switch = round(time.monotonic() - begin, 2)
    return Ours(step, 0.0 if ranks.context else _attention(row, kernel), switch)


def _decoder(row: Row, model: Any, kernel: Any) -> Any:
    import torch

    from training.decoder import Decoder
    from training.memory import Load, passes
    from training.norms import fusion_for

    recompute: Any = row.recompute
    if recompute == "auto":
        gpu = torch.cuda.is_available()
        memory = torch.cuda.get_device_properties(0).total_memory if gpu else math.inf
        load = Load(model.config, sum(one.numel() for one in model.parameters()) / row.ranks, row.width)
        recompute = passes(load, row.rows, row.tokens, memory, smaller=False).recompute
    wanted: Any = row.fusion
    fusion = fusion_for(next(model.parameters()).device, wanted)
    return Decoder(model, torch.bfloat16, kernel, recompute, torch.cuda.is_available(), fusion, row.float8)


def _step(row: Row, decoder: Any, optimizer: Any, ranks: Any) -> Callable[[], float]:
    import torch
    from torch.nn.functional import pad

    from training import parallel
    from training.layout import layout_of

    device = next(decoder.parameters()).device
    share = ranks.rows(row.rows)
    documents, positions = (field[share] for field in row.documents)
    tokens = _tokens(row)
    labels = pad(tokens, (0, 1), value=-100)[:, 1:].contiguous()
    scale = torch.tensor(ranks.world / int((labels >= 0).sum()), device=device)
    fields = [tokens.numpy()[share], labels.numpy()[share], positions]
    inputs = [torch.from_numpy(ranks.context.cut(one) if ranks.context else one).to(device) for one in fields]

    def layout() -> Any:
        # Made anew for each step, as in training, where every batch has its own documents.
        return layout_of(documents, device, decoder.kernel, ranks.context)

    ahead = layout()

    def step() -> float:
        nonlocal ahead
        loss, entropy = decoder(*inputs, ahead, scale)
        loss.backward()
        values = parallel.loss_and_norm(decoder, entropy)
        ahead = layout()
        mean, norm = values.tolist()
        parallel.clip(decoder, norm, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return mean

    return step


def _attention(row: Row, kernel: Any) -> float:
    """Seconds of one layer's attention, forward and backward, with nothing around it."""
    import torch

    from training.attention import attend
    from training.layout import layout_of

    if not torch.cuda.is_available():
        return 0.0
    layout = layout_of(row.documents[0], torch.device("cuda"), kernel)
    made = torch.randn(row.tokens, row.heads + 2 * row.kv_heads, 128, device="cuda", dtype=torch.bfloat16)
    inputs = [one.contiguous().requires_grad_() for one in made.split([row.heads, row.kv_heads, row.kv_heads], 1)]
    run = torch.compile(lambda q, k, v: attend(q, k, v, layout, kernel, 128**-0.5), dynamic=False)
    gradient = torch.randn_like(inputs[0])
    return seconds_of(lambda: torch.autograd.grad(run(*inputs), inputs, gradient), 12)


def hugging_face(row: Row, clock: Clock) -> None:
    """Run transformers' own Trainer, with Liger kernels where there is a GPU, by the clock."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    gpu = torch.cuda.is_available()

    class Ticks(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clock.begin = time.monotonic()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick()

    model = _model(row, row.kernel if gpu else "sdpa")
    _, positions = row.documents
    tokens = _tokens(row)
    rows = [{"input_ids": line, "labels": line} for line in tokens]
    if row.document:
        for one, line in zip(rows, torch.from_numpy(positions), strict=True):
            one["position_ids"] = line
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, bf16=True, use_cpu=not gpu, use_liger_kernel=gpu, learning_rate=1e-4,
            lr_scheduler_type="constant", weight_decay=0.1, optim="adamw_torch_fused", max_grad_norm=1.0,
            per_device_train_batch_size=row.rows, max_steps=clock.ticks, train_sampling_strategy="sequential",
            report_to=[], save_strategy="no", logging_steps=1, logging_first_step=True, disable_tqdm=True,
            dataloader_pin_memory=gpu,
        )  # fmt: skip
        trainer = Trainer(model=model, args=arguments, train_dataset=rows * clock.ticks, callbacks=[Ticks()])  # type: ignore
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    clock.losses = [round(float(losses[0]), 4), round(float(losses[-1]), 4)]


def _model(row: Row, attention: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, Qwen3Config

    config = Qwen3Config(
        vocab_size=row.vocabulary, hidden_size=row.hidden, intermediate_size=row.inner, num_hidden_layers=row.layers,
        num_attention_heads=row.heads, num_key_value_heads=row.kv_heads, head_dim=128, tie_word_embeddings=False,
        max_position_embeddings=max(row.width, row.then), use_cache=False,
    )  # fmt: skip
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention)


def _tokens(row: Row) -> Any:
    """Random tokens [rows, width]; rows of one document are the same on both sides."""
    import torch

    return torch.randint(0, row.vocabulary, (row.rows, row.width), generator=torch.Generator().manual_seed(1))


def seconds_of(run: Callable[[], Any], times: int) -> float:
    """Seconds of one call, after three that do not count."""
    for _ in range(3):
        run()
    synchronize()
    begin = time.monotonic()
    for _ in range(times):
        run()
    synchronize()
    return (time.monotonic() - begin) / times


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
