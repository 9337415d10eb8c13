"""What the trainers of all alignment stages share: arguments, checkpoints as pieces, the model folder."""

import shutil
import time
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, TrainerCallback

from data_curation.place import Piece, Place
from data_curation.settings import StageError

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
        next(name for name in ("activation_checkpointing", "gradient_checkpointing") if hasattr(cls, name)): False,
        "report_to": "none",
        "save_strategy": "no",
        "save_total_limit": 1,
        "disable_tqdm": True,
        "logging_nan_inf_filter": False,  # it would show a loss that is no number as 0
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": cuda,
        "push_to_hub": False,
    }
    return cls(**{**shared, **settings})


def batches(sequences: int, tokens: int, place: Place) -> dict[str, int]:
    """A step of so many sequences of at most `tokens` tokens, in passes of `micro_batch_tokens`: trainer arguments."""
    limit = place.resources.micro_batch_tokens
    fitting = sequences if limit is None else max(1, limit // tokens)
    share = next(size for size in range(min(fitting, sequences), 0, -1) if sequences % size == 0)
    return {"per_device_train_batch_size": share, "gradient_accumulation_steps": sequences // share}


class CheckpointPieces(TrainerCallback):
    """Keeps a checkpoint as a piece when `checkpoint_seconds` have passed, at multiples of `every` steps only."""

    def __init__(self, place: Place, every: int = 1) -> None:
        self.place, self.every = place, every
        self.last = time.monotonic()
        self.progress: Any = None
        self.logged: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count from the step at which the training continues."""
        self.progress = self.place.progress("steps", state.max_steps)
        curves = {name: curve(state.log_history, name) for name in DRAWN}
        self.progress.begin(state.global_step, {name: points for name, points in curves.items() if points})

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """What the trainer said after a step is told with the next one."""
        self.logged = {name: float(logs[name]) for name in DRAWN if name in logs}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint when it is time; the last step needs none."""
        self.progress.update(1, _last_loss(state.log_history), self.logged)
        self.logged = {}
        due = time.monotonic() - self.last >= self.place.resources.checkpoint_seconds
        if due and state.global_step % self.every == 0 and state.global_step < state.max_steps:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Send the finished checkpoint as one piece and drop those older than the newest two."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        name = f"checkpoint-{state.global_step:06d}"
        if self.place.done(name) is None:
            with self.place.piece(name) as piece:
                piece.send(f"work/{name}", folder)
        shutil.rmtree(folder)
        for piece in checkpoints(self.place)[:-KEPT]:
            self.place.drop(piece)
        self.last = time.monotonic()


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
    for name in TOKENIZER_FILES:
        if (tokenizer_folder / name).exists():
            shutil.copyfile(tokenizer_folder / name, out / name)


def curve(history: list[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    """(step, value) of one logged quantity, each step once."""
    return sorted({float(row["step"]): float(row[name]) for row in history if name in row}.items())


def _last_loss(history: list[dict[str, Any]]) -> str:
    losses = [row["loss"] for row in history if "loss" in row]
    return f"loss {float(losses[-1]):.3f}" if losses else ""
