"""One training of pretrain_text.py in this process: its settings, our side of it, the measurement both sides share."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.pretrain_rows import D20

WARMUP = 0.1
"""Share of the steps, of ours."""
DECAY = {"shape": "linear", "final_share": 0.05}
"""Of our learning rate after them; nanochat's ends at the same share."""
FREE = 10
"""First steps, whose time does not count for tokens per second."""
SLOW = 3.0
"""Neither does that of steps which take so many times the median: they compile."""
Windows = list[tuple[int, np.ndarray]]
"""(document, some of its tokens); the first of them is not predicted."""


@dataclass(frozen=True)
class Run:
    """One training."""

    width: int
    dtype: Literal["bfloat16", "float8"] = "bfloat16"
    optimizer: Literal["adamw", "muon"] = "adamw"
    engine: Literal["ours", "nanochat"] = "ours"
    tokens_per_step: int = 0
    """0: each side's own rule."""
    rate: float | None = None
    """Peak of the learning rate; none: each side's own rule."""
    as_long: str = ""
    """It gets as many steps as fit into the seconds of this training, by its own speed in the run `same`."""
    same: str = ""


# By DeepSeek LLM's rule for these FLOPs, though it is meant for far smaller models on as few tokens.
EIGHT_K = Run(8192, tokens_per_step=131_072, rate=2.4e-3)
RUNS = {
    "bf16": EIGHT_K,
    "fp8": replace(EIGHT_K, dtype="float8"),
    "2k": Run(2048, tokens_per_step=32_768, rate=1e-3),
    # Step Law's batch of 8k tokens would leave a GPU idle; the rate is by hand, not searched.
    "2k-muon": Run(2048, optimizer="muon", tokens_per_step=32_768, rate=1e-3),
    "nanochat": Run(2048, engine="nanochat"),
    "nanochat-as-long": Run(2048, engine="nanochat", as_long="2k-muon", same="nanochat"),
}


@dataclass(frozen=True)
class Scale:
    """Sizes that are others for a try on a CPU."""

    hidden: int = D20.hidden
    layers: int = D20.layers
    heads: int = D20.heads
    inner: int = D20.inner
    shorter: int = 1
    """Rows are so many times shorter."""
    tokens_per_step: int = 0
    """0: each side's own rule."""
    micro_batch: int = 65536
    """Tokens of one forward pass."""
    held_out: int = 1 << 40
    """Held-out tokens that are read, at most."""


TINY = Scale(hidden=64, layers=2, heads=2, inner=128, shorter=16, tokens_per_step=1024, micro_batch=1024, held_out=8192)


@dataclass(frozen=True)
class Given:
    """What a training is made from."""

    text: Path
    """Folder with shards, heldout and tokenizer."""
    tokens: int
    """To train on; whole steps of them."""
    scale: Scale
    scratch: Path
    peer: Path | None = None
    """A checkout of nanochat."""
    peer_flash4: bool = True
    """FlashAttention-4 in place of its FlashAttention-3."""


@dataclass
class Steps:
    """Seconds and losses of a training's steps."""

    tokens_per_step: int
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    begin: float = field(default_factory=time.monotonic)

    def add(self, loss: float) -> None:
        """A step is over."""
        synchronize()
        now = time.monotonic()
        self.seconds.append(now - self.begin)
        self.losses.append(loss)
        self.begin = now

    def found(self) -> dict[str, Any]:
        """Speed without what was compiled, and the loss of the last tenth."""
        later = self.seconds[FREE:] if len(self.seconds) > 2 * FREE else self.seconds[1:]
        usual = [one for one in later if one <= SLOW * float(np.median(later))]
        step, number = sum(usual) / len(usual), len(self.seconds)
        last = self.losses[-max(1, number // 10) :]
        curve = np.unique(np.linspace(0, number - 1, 33).astype(int)).tolist()
        return {
            "steps": number, "tokens_per_step": self.tokens_per_step, "tokens": number * self.tokens_per_step,
            "tokens_per_second": round(self.tokens_per_step / step), "seconds": round(number * step, 1),
            "compile_seconds": round(sum(self.seconds) - number * step, 1),
            "loss": round(sum(last) / len(last), 4), "curve": [[one, round(self.losses[one], 3)] for one in curve],
        }  # fmt: skip


def ours(run: Run, seed: int, given: Given) -> dict[str, Any]:
    """Train with training.step.Trainer, the product's own, from shards to held-out loss."""
    import torch

    from data_curation.place import Place, Resources
    from training.state import State
    from training.step import Inputs, decoder_for, prepare

    text, width = given.text, run.width // given.scale.shorter
    phase = phase_run(run, seed, given.scale, given.tokens)
    resources = Resources(micro_batch_tokens=max(width, given.scale.micro_batch), threads=torch.get_num_threads())
    place = Place(str(given.scratch / "home"), given.scratch, resources, "pretrain")
    begin = time.monotonic()
    trainer = prepare(phase, Inputs(str(text / "shards"), text / "tokenizer", None, None), place)
    prepared = time.monotonic() - begin
    state, steps = State(), Steps(phase.tokens_per_step)
    while state.step < phase.steps:
        trainer.step(state)
        steps.add(state.history[-1].loss if state.history else math.nan)
    windows = held_out(text / "heldout", width, given.scale.held_out)
    begin, model, heldout = time.monotonic(), trainer.model.eval(), dict[str, Any]()
    for dtype in dict.fromkeys((phase.dtype, "bfloat16")):
        decoder = decoder_for(phase.model_copy(update={"dtype": dtype}), model, trainer.device, "none")
        heldout[dtype] = bits_per_byte(windows, _reader(trainer, decoder, width), trainer.token_bytes)
    return steps.found() | {
        "heldout": heldout[phase.dtype], "heldout_bfloat16": heldout["bfloat16"], "skipped": len(state.skipped),
        "epochs": round(trainer.batches.epochs(0, phase.steps), 3), "prepare_seconds": round(prepared, 1),
        "heldout_seconds": round(time.monotonic() - begin, 1), "kernel": trainer.decoder.kernel,
        "learning_rate": phase.phase.learning_rate, "warmup_steps": phase.phase.warmup_steps,
        "parameters": parameters_of(model, model.get_input_embeddings().weight),
    }  # fmt: skip


def phase_run(run: Run, seed: int, scale: Scale, tokens: int) -> Any:
    """The phase of a run; where that says no batch or learning rate they follow from the size."""
    from training.architecture import ModelConfig
    from training.phases import Phase
    from training.pretrain import PretrainConfig
    from training.schedule import ScheduleConfig

    model = ModelConfig(
        hidden_size=scale.hidden, layers=scale.layers, heads=scale.heads, kv_heads=scale.heads,
        intermediate_size=scale.inner, tie_embeddings=False,
    )  # fmt: skip
    width = run.width // scale.shorter
    config = PretrainConfig(
        model=model, tokens_per_step=scale.tokens_per_step or run.tokens_per_step, optimizer=run.optimizer,
        dtype=run.dtype, seed=seed,
        phases=[Phase(seq_len=width, tokens=tokens, rope_theta=5e4, learning_rate=run.rate)],
        schedule=ScheduleConfig.model_validate(DECAY),
    )  # fmt: skip
    steps = tokens // config.tokens_per_step
    phases = [config.phases[0].model_copy(update={"warmup_steps": round(WARMUP * steps)})]
    return config.model_copy(update={"phases": phases}).run_of(0)


def _reader(trainer: Any, decoder: Any, width: int) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    from training.reading import Reader

    reader = Reader(decoder, width, trainer.ranks, trainer.device, lambda: None)
    return lambda sequences: reader.read(sequences)[0]


def held_out(folder: Path, width: int, most: int) -> Windows:
    """The held-out documents without their separators, in windows of `width` tokens that overlap by one.

    `most` tokens or one document more.
    """
    from data_curation.shards import heldout_documents

    found: Windows = []
    for number, document in enumerate(heldout_documents(folder)):
        tokens = document.tokens[:-1].astype(np.int64)
        found += [(number, tokens[at : at + width]) for at in range(0, len(tokens) - 1, width - 1)]
        most -= len(tokens)
        if most <= 0:
            break
    return found


def bits_per_byte(
    windows: Windows, read: Callable[[Sequence[np.ndarray]], list[np.ndarray]], token_bytes: np.ndarray
) -> dict[str, Any]:
    """Bits for each UTF-8 byte of all tokens but each document's first; `read` gives each window's losses in nats."""
    from training.heldout import ratio

    losses = read([tokens for _, tokens in windows])
    nats, sizes = (np.zeros(windows[-1][0] + 1) for _ in range(2))
    for (document, tokens), one in zip(windows, losses, strict=True):
        read_bytes = token_bytes[tokens[1:]]
        nats[document] += one[read_bytes > 0].sum()
        sizes[document] += read_bytes.sum()
    return ratio((nats / math.log(2)).tolist(), sizes.tolist())


def parameters_of(model: Any, *looked_up: Any) -> dict[str, int]:
    """All, and those of matrix products: matrices that are not only looked up in."""
    skipped = {id(one) for one in looked_up}
    products = sum(one.numel() for one in model.parameters() if one.ndim > 1 and id(one) not in skipped)
    return {"all": sum(one.numel() for one in model.parameters()), "products": products}


def one(name: str, seed: int, given: Given) -> dict[str, Any]:
    """Run it; what it measured."""
    import torch

    gpu, run = torch.cuda.is_available(), RUNS[name]
    if run.engine == "ours":
        found = ours(run, seed, given)
    else:
        from benchmarks import pretrain_nanochat

        found = pretrain_nanochat.train(run, seed, given)
    about = {"run": name, "seed": seed, **found, "settings": asdict(run), "scale": asdict(given.scale)}
    return about | {
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1) if gpu else None,
        "device": torch.cuda.get_device_name() if gpu else "cpu", "torch": torch.__version__,
    }  # fmt: skip


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
