"""Pretraining, one stage per sequence length: each phase goes on from the last one's model and optimizer."""

from typing import Any, Literal, Self

from pydantic import model_validator

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.files import is_local
from data_curation.place import Place
from data_curation.settings import ConfigError, Settings, StageError, outside_identity
from training.architecture import ModelConfig, Rope
from training.gates import ProbeConfig
from training.mixing import MixConfig
from training.phases import BY_SIZE, PHASES, Phase, Tokens, by_size, check_phase, rope_of
from training.schedule import ScheduleConfig, Span


class Shared(Settings):
    """What all phases have in common."""

    model: ModelConfig = ModelConfig()
    """The architecture."""
    tokens_per_step: Tokens = BY_SIZE
    """Global batch in tokens, the same in all phases; 0: by the size of the first one, as its learning rate."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon` gives matrices orthogonal updates and everything else AdamW, at the same learning rates."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay of first and second moment (0.95 is usual for language models since GPT-3)."""
    weight_decay: float = 0.1
    """AdamW's decoupled decay of matrices; embeddings and norms have none."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    dtype: Literal["float32", "bfloat16", "float8"] = "bfloat16"
    """Numbers in which is computed; weights and optimizer are always float32. `float8` (a Hopper GPU or newer): the
    layers' products in 8 bits with a scale per token and per row of a weight, all else bfloat16."""
    z_loss: float = 0.0
    """Weight of the squared log of the softmax's divisor in the loss; 1e-4 keeps logits small (PaLM, section 5)."""
    attention: Literal["auto", "flash4", "flex", "flash2", "sdpa"] = outside_identity("auto")
    """Kernel on a GPU, for comparisons: all have one result; `auto` takes flash4 where it is installed, else flex."""
    fusion: Literal["auto", "compiled", "triton", "quack"] = outside_identity("auto")
    """What a GPU does between products, one result: torch.compile's kernels, ours around norms, quack's SwiGLU too;
    `auto`: the last where quack-kernels is installed and the GPU is a Hopper or newer, else ours."""
    recompute: Literal["auto", "none", "attention", "full"] = outside_identity("auto")
    """What the backward pass computes again (activation checkpointing): nothing, all but attention, all; `auto`: as
    little as a GPU's memory allows, in no more layers than needed, and only if passes of one row or of 8k tokens are
    too large."""
    seed: int = 0
    """Seed of the initial weights and of the order of documents."""
    probes: ProbeConfig = outside_identity(ProbeConfig())
    """What is measured after each phase, and gates."""
    max_epochs: float | None = outside_identity(None, gt=0)
    """Refuse to read a source's documents more often than this; none only warns above 4 times."""


class PhaseRun(Shared):
    """All that one phase's stage depends on: shared fields, its own entry, its resolved schedule."""

    phase: Phase
    """The phase's own entry."""
    schedule: Span
    """The learning rate's shape and steps."""
    rope: Rope
    """Its rotary positions."""
    lengths: list[tuple[int, int]]
    """(seq_len, steps) of the phases up to this one, which say where in the data this one goes on."""
    mixes: list[MixConfig]
    """Which documents each of them reads."""

    @property
    def index(self) -> int:
        """Number of this phase, from 0."""
        return len(self.lengths) - 1

    @property
    def steps(self) -> int:
        """Steps of this phase."""
        return self.lengths[-1][1]

    @property
    def earlier_steps(self) -> int:
        """Steps of all phases before this one."""
        return sum(steps for _, steps in self.lengths[:-1])

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step of this phase (from 0)."""
        assert self.phase.learning_rate is not None  # PretrainConfig has put a number there
        return self.phase.learning_rate * self.schedule.factor(step)


class PretrainConfig(Shared):
    """Length-progressive pretraining: one stage per phase."""

    phases: list[Phase] = PHASES
    """The phases in order; more than half of the tokens in the first, in current practice nine tenths and more."""
    schedule: ScheduleConfig = ScheduleConfig()
    """The learning rate between warm-up and end."""

    @model_validator(mode="before")
    @classmethod
    def _by_size(cls, data: Any) -> Any:
        return by_size(data) if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.phases:
            raise ValueError("pretrain.phases is empty: give one {seq_len, tokens, learning_rate} or more")
        for index in range(len(self.phases)):
            check_phase(self.phases, index, self.tokens_per_step, self.schedule)
        share = self.phases[0].tokens / sum(phase.tokens for phase in self.phases)
        if share <= 0.5:
            raise ValueError(
                f"pretrain.phases[0].tokens is {share:.0%} of all tokens; the first phase needs more than half: "
                "raise it or shorten later phases"
            )
        return self

    def names(self) -> list[str]:
        """The stages' names, one per phase: pretrain-256, pretrain-8k."""
        lengths = [phase.seq_len for phase in self.phases]
        return [f"pretrain-{length // 1024}k" if length % 1024 == 0 else f"pretrain-{length}" for length in lengths]

    def run_of(self, index: int) -> PhaseRun:
        """What the stage of one phase depends on; later phases are in it only with `span: run`."""
        lengths = [(phase.seq_len, phase.tokens // self.tokens_per_step) for phase in self.phases]
        steps = [steps for _, steps in lengths]
        whole, phase = self.schedule.span == "run", self.phases[index]
        span = Span(
            shape=self.schedule.shape if phase.shape is None else phase.shape,
            steps=sum(steps) if whole else steps[index],
            first=sum(steps[:index]) if whole else 0,
            warmup_steps=self.phases[0].warmup_steps if whole else phase.warmup_steps,
            decay_share=self.schedule.decay_share,
            final_share=self.schedule.final_share,
        )
        shared = {name: getattr(self, name) for name in Shared.model_fields}
        mixes = [phase.mix for phase in self.phases[: index + 1]]
        rope = rope_of(self.phases, index)
        return PhaseRun(**shared, phase=phase, schedule=span, rope=rope, lengths=lengths[: index + 1], mixes=mixes)


def pretrain(
    config: PhaseRun, shards: Artifact, tokenizer: Artifact, previous: Artifact | None, place: Place
) -> Counts:
    """Train one phase: parts `model` (a plain Hugging Face folder) and `state` (optimizer and counters)."""
    from training.launch import launch
    from training.loop import Inputs, train

    finished = place.done("model")
    if finished is not None:
        return finished.counts
    if (previous is None) != (config.index == 0):
        raise StageError(f"{place.name}: phase {config.index} {'needs' if config.index else 'takes no'} previous phase")
    inputs = Inputs(
        shards=_shards(shards, place),
        tokenizer=tokenizer.folder("tokenizer", place.scratch),
        model=None if previous is None else previous.folder("model", place.scratch),
        state=None if previous is None else previous.folder("state", place.scratch),
        heldout=shards.folder("heldout", place.scratch) if "heldout" in shards.parts else None,
    )
    for name in ("nodes", "context_ranks", "shard_ranks"):
        if place.resources.ranks % ((number := getattr(place.resources, name)) or 1):
            raise ConfigError(
                f"run.resources.{name} is {number}, which does not divide run.resources.ranks ({place.resources.ranks})"
            )
    if place.resources.ranks == 1:
        return train(config, inputs, place)
    folders = {name: None if path is None else str(path) for name, path in vars(inputs).items()}
    given = {"run": config.model_dump(mode="json"), "inputs": folders}
    return launch("training.loop:train_given", given, place, place.resources.stall_seconds).counts


def _shards(shards: Artifact, place: Place) -> str:
    """The store's own folder on disk; on s3 its URI, the index verified, which holds the hash of every other file."""
    if is_local(shards.home):
        return str(shards.folder("shards", place.scratch))
    shards.read_json("shards", "index.json")
    return shards.uri("shards")
