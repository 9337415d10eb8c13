"""What the trainers of all alignment stages share: arguments, checkpoints and the end at SIGTERM, the model folder."""

import os
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import torch
from torch import distributed
from transformers import AutoModelForCausalLM, GenerationConfig, TrainerCallback

from data_curation.counts import Counts
from data_curation.place import Piece, Place
from data_curation.settings import ConfigError, StageError, TransientError
from training.stop import on_sigterm

PASS_TOKENS = 16_384
"""Tokens of a pass on a GPU where `run.resources.micro_batch_tokens` says nothing; logits need the most memory."""
DRAWN = ("loss", "reward", "kl")  # while the stage runs
KEPT = 2  # checkpoints; the newest may be unreadable on the disk that just failed
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "vocab.json", "merges.txt", "tokenizer.model",
)  # fmt: skip


def device_of(place: Place) -> str:
    """`cpu` or `cuda`, what `auto` means on this machine."""
    wanted = place.resources.device
    return wanted if wanted != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def trainable(folder: Path) -> Any:
    """The model of a folder with float32 weights, whatever the folder's are: small steps get lost in bfloat16."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def arguments(cls: type, place: Place, **settings: Any) -> Any:
    """A trainer's arguments (SFTConfig, DPOConfig, ...): safe on a CPU, silent towards the outside.

    Checkpoints are saved when CheckpointPieces asks for one, never by the trainer's own schedule.
    """
    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True  # the environment was read at import
    cuda = device_of(place) == "cuda"
    if not cuda:
        torch.set_num_threads(place.resources.threads)
    shared: dict[str, Any] = {
        "output_dir": str(place.scratch / "trainer"),
        "use_cpu": not cuda,
        "bf16": cuda,  # TRL's own default is bf16 everywhere
        # transformers 5.23 renamed it and warns of the old name, which CUDA images with older ones still want.
        next(
            name for name in ("activation_checkpointing", "gradient_checkpointing") if hasattr(cls, name)
        ): place.resources.recompute,
        "report_to": "none",
        "save_strategy": "no",
        "save_total_limit": 1,
        "disable_tqdm": True,
        "logging_nan_inf_filter": False,  # it would show a loss that is no number as 0
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": cuda,
        "push_to_hub": False,
        "ddp_find_unused_parameters": False,  # there are none; to look for them takes time
    }
    made = cls(**{**shared, **settings})
    # A process has one GPU. With all that it sees transformers would split each pass, and make it as many times larger.
    made._n_gpu = min(made.n_gpu, 1)
    return made


def batches(sequences: int, tokens: int, place: Place, most: int | None = None) -> dict[str, int]:
    """A step of so many sequences of at most `tokens` tokens as trainer arguments, the ranks' shares of it equal.

    A pass has `micro_batch_tokens`, or `most`; without either the step is one pass on a CPU.
    """
    ranks = place.resources.ranks
    own, rest = divmod(sequences, ranks)
    if rest:
        raise ConfigError(
            f"{place.name}: run.resources.ranks is {ranks}: a step of {sequences} sequences does not go evenly to "
            f"them: change either, for this stage alone by run.stages"
        )
    limit = place.resources.micro_batch_tokens or most or (PASS_TOKENS if device_of(place) == "cuda" else None)
    fitting = own if limit is None else max(1, limit // tokens)
    share = next(size for size in range(min(fitting, own), 0, -1) if own % size == 0)
    return {"per_device_train_batch_size": share, "gradient_accumulation_steps": own // share}


def longest_side(rows: Any) -> int:
    """Tokens of the longest side of these pairs (a datasets.Dataset), with its prompt where that is a column."""
    prompts = rows["prompt_ids"] if "prompt_ids" in rows.column_names else [[]] * len(rows)
    sides = zip(prompts, rows["chosen_ids"], rows["rejected_ids"], strict=True)
    return max(len(prompt) + max(len(chosen), len(rejected)) for prompt, chosen, rejected in sides)


def first_rank() -> bool:
    """Whether this process writes what all ranks of a training have made."""
    return int(os.environ.get("RANK", "0")) == 0


def train(trainer: Any, checkpoint: Path | None, place: Place) -> None:
    """All steps that are left after the checkpoint. At SIGTERM one more is kept and a TransientError ends all ranks."""
    pieces = CheckpointPieces(place)
    trainer.add_callback(pieces)
    with on_sigterm(pieces.asked.set), suppress(_NothingLeft):
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if pieces.ended:
        if distributed.is_initialized():
            distributed.barrier()  # the first rank keeps the checkpoint; when one has gone, torchrun ends the others
        step = trainer.state.global_step
        raise TransientError(f"{place.name}: SIGTERM ended it after step {step}; run it again to go on")


class _NothingLeft(Exception):  # noqa: N818 - the weights are those of the last step; nothing failed
    """Ends a training that goes on from its last step."""


class CheckpointPieces(TrainerCallback):
    """Keeps a checkpoint as a piece when `checkpoint_seconds` have passed, and when it is `asked` to end.

    Several ranks save together, by the first one's clock; that one keeps the piece and tells of the steps.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.last = time.monotonic()
        self.progress: Any = None
        self.logged: dict[str, float] = {}
        self.asked = threading.Event()
        self.ended = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count from the step at which the training continues."""
        if not first_rank():
            return
        self.progress = self.place.progress("steps", state.max_steps)
        curves = {name: curve(state.log_history, name) for name in DRAWN}
        self.progress.begin(state.global_step, {name: points for name, points in curves.items() if points})

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Within an epoch transformers looks for the last step after a step alone, so it would take one too many."""
        if state.global_step >= state.max_steps:
            raise _NothingLeft

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """What the trainer said after a step is told with the next one."""
        self.logged = {name: float(logs[name]) for name in DRAWN if name in logs}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A checkpoint when it is time, which the last step does not need, or when the end is asked for."""
        if self.progress:
            self.progress.update(1, _last_loss(state.log_history), self.logged)
        self.logged = {}
        # What the last step's loss was must be known, however seldom losses are logged.
        control.should_log = control.should_log or state.global_step >= state.max_steps
        due = state.global_step < state.max_steps and first_rank()
        due = due and time.monotonic() - self.last >= self.place.resources.checkpoint_seconds
        due, self.ended = _agreed(due, self.asked.is_set(), args.device)
        control.should_save = control.should_save or due or self.ended
        control.should_training_stop = control.should_training_stop or self.ended

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Send the finished checkpoint as one piece and drop those older than the newest two."""
        self.last = time.monotonic()
        if distributed.is_initialized():
            distributed.barrier()  # each rank writes a file of it
        if not first_rank():
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        name = f"checkpoint-{state.global_step:06d}"
        if self.place.done(name) is None:
            with self.place.piece(name) as piece:
                piece.send(f"work/{name}", folder)
        shutil.rmtree(folder)
        for piece in checkpoints(self.place)[:-KEPT]:
            self.place.drop(piece)


def checkpoints(place: Place) -> list[Piece]:
    """The complete checkpoints, oldest first."""
    found = [piece for piece in place.pieces() if piece.name.startswith("checkpoint-")]
    return sorted(found, key=lambda piece: int(piece.name.rsplit("-", 1)[1]))


def resume_folder(place: Place) -> Path | None:
    """A local folder with the newest complete checkpoint, its hashes checked, or nothing to resume from."""
    found = checkpoints(place)
    return place.folder(found[-1], f"work/{found[-1].name}") if found else None


def save_model(model: Any, tokenizer_folder: Path, out: Path, eos_token_id: int, pad_token_id: int) -> None:
    """A plain Hugging Face folder: weights, config, generation config, and the tokenizer's files copied as they are."""
    spoilt = next((name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()), None)
    if spoilt:
        raise StageError(f"{spoilt} holds values that are no numbers: training diverged, lower the learning rate")
    out.mkdir(parents=True, exist_ok=True)
    model.config.use_cache = True
    model.config.eos_token_id, model.config.pad_token_id = eos_token_id, pad_token_id
    model.generation_config = GenerationConfig(eos_token_id=eos_token_id, pad_token_id=pad_token_id)
    model.save_pretrained(out)
    model.generation_config.save_pretrained(out)  # a model without a language head has not; the contract reads it
    for name in TOKENIZER_FILES:
        if (tokenizer_folder / name).exists():
            shutil.copyfile(tokenizer_folder / name, out / name)


def keep_model(model: Any, tokenizer: Any, source: Path, counts: Counts, place: Place) -> None:
    """The piece `model` with these counts; `source` is the folder with the tokenizer's files."""
    out = place.scratch / "model"
    save_model(model, source, out, tokenizer.eos_token_id, tokenizer.pad_token_id)
    with place.piece("model") as piece:
        piece.send("model", out)
        piece.piece.counts = counts


def curve(history: list[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    """(step, value) of one logged quantity, each step once."""
    return sorted({float(row["step"]): float(row[name]) for row in history if name in row}.items())


def _agreed(due: bool, asked: bool, device: torch.device) -> tuple[bool, bool]:
    """What any rank says, on all ranks."""
    if not distributed.is_initialized():
        return due, asked
    said = torch.tensor([int(due), int(asked)], device=device)
    distributed.all_reduce(said, distributed.ReduceOp.MAX)
    due, asked = map(bool, said.tolist())
    return due, asked


def _last_loss(history: list[dict[str, Any]]) -> str:
    losses = [row["loss"] for row in history if "loss" in row]
    return f"loss {float(losses[-1]):.3f}" if losses else ""
