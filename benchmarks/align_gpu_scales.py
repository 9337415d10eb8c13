"""What benchmarks/align_gpu.py trains: a base of 116 million parameters on a GPU, a toy where it is tried out."""

from dataclasses import dataclass

from training.architecture import ModelConfig
from training.gates import ProbeConfig
from training.instruct import InstructConfig
from training.pairs import PairsConfig
from training.phases import Phase
from training.prefer import PreferConfig
from training.pretrain import PretrainConfig
from training.reinforce import ReinforceConfig


@dataclass(frozen=True)
class Scale:
    """What one run of the benchmark trains."""

    pretrain: PretrainConfig
    instruct: InstructConfig
    pairs: PairsConfig
    prefer: PreferConfig
    reinforce: ReinforceConfig
    tasks: dict[str, int]
    """Generated tasks of each split."""
    warm: int
    """Steps of a trainer that do not count."""
    last: int
    """Step with which the other side ends; ours goes on, but is not timed any more."""
    chat: int = 16_384
    """Tokens of one pass of SFT."""
    short: int = 40_960
    """The same of DPO and GRPO."""


FULL = Scale(
    pretrain=PretrainConfig(
        model=ModelConfig(hidden_size=768, layers=16, heads=6, kv_heads=6, intermediate_size=2048),
        tokens_per_step=131_072,
        phases=[Phase(seq_len=1024, tokens=36_000_000, learning_rate=1e-3, warmup_steps=30)],
        probes=ProbeConfig(tokens=40_000, needles=0),
    ),
    instruct=InstructConfig(
        learning_rate=6e-4, epochs=5, tasks=6000, seq_len=1024, batch_size=16, held_out_tasks=960, held_out_chats=50,
        max_new_tokens=16,
    ),
    pairs=PairsConfig(
        samples=4, prompts=5000, test_prompts=960, max_new_tokens=24, chat_prompts=128, pairs_per_prompt=2,
        chosen="sample-or-reference",
    ),
    prefer=PreferConfig(
        learning_rate=1e-4, likelihood=1.0, batch_size=64, max_length=640, max_new_tokens=16, test_pairs=1000,
    ),
    reinforce=ReinforceConfig(
        steps=160, prompts_per_step=64, learning_rate=5e-6, warmup=3, beta=0.01, reward_weight=0, max_new_tokens=16,
        hardest=0.02, dev_tasks=480, held_out_tasks=960,
    ),
    tasks={"train": 12_000, "dev": 480, "test": 960}, warm=5, last=40,
)  # fmt: skip
TINY = Scale(
    pretrain=PretrainConfig(
        model=ModelConfig(hidden_size=64, layers=2, heads=2, kv_heads=2, intermediate_size=128),
        tokens_per_step=2048, dtype="float32",
        phases=[Phase(seq_len=256, tokens=20 * 2048, learning_rate=6e-3, warmup_steps=2)],
        probes=ProbeConfig(tokens=0),
    ),
    instruct=InstructConfig(
        learning_rate=3e-3, epochs=1, seq_len=256, batch_size=8, held_out_tasks=24, held_out_chats=8, max_new_tokens=6,
    ),
    pairs=PairsConfig(
        samples=2, prompts=48, test_prompts=12, max_new_tokens=6, chat_prompts=8, pairs_per_prompt=2,
        chosen="sample-or-reference",
    ),
    prefer=PreferConfig(
        learning_rate=1e-3, likelihood=0.1, epochs=2, batch_size=8, max_length=256, max_new_tokens=6, test_pairs=12,
    ),
    reinforce=ReinforceConfig(
        steps=5, prompts_per_step=4, samples=4, learning_rate=1e-3, warmup=1, beta=0.01, reward_weight=0,
        max_new_tokens=6, dev_tasks=12, held_out_tasks=12,
    ),
    tasks={"train": 600, "dev": 24, "test": 24}, warm=1, last=5, chat=1024, short=4096,
)  # fmt: skip
