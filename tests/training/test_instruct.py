"""Instruct: learns planted answers, says what it dropped, resumes to the same bytes after kill -9."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from data_curation.artifact import Artifact
from data_curation.place import Place, parts_of
from data_curation.settings import ConfigError, InputError, StageError
from tests.training.conftest import DIALOGUES, artifact, coins, parquet
from training.instruct import InstructConfig, instruct
from training.instruct_measures import seq_len_of

# peft 0.21 reads the old name of what transformers 5.23 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
CONFIG = InstructConfig(
    learning_rate=5e-3, seq_len=96, batch_size=4, epochs=3, warmup=0.05, held_out_tasks=40, max_new_tokens=4
)


def chats(count: int) -> list[dict[str, Any]]:
    """Multi-turn conversations with one planted answer."""
    return [
        {
            "id": f"chat-{number}",
            "source": "talk",
            "kind": "chat",
            "messages": [
                {"role": "user", "content": f"say {number}"},
                {"role": "assistant", "content": "ok"},
                {"role": "user", "content": "more"},
                {"role": "assistant", "content": "ok"},
            ],
            "task": "",
        }
        for number in range(count)
    ]


@pytest.fixture
def dialogues(tmp_path: Path) -> Artifact:
    """Coin tasks and small talk to train on, others held out."""
    splits = {"train": coins(0, 120) + chats(20), "test": coins(200, 240) + chats(6)}
    files = {split: {"00000.parquet": parquet(rows, DIALOGUES)} for split, rows in splits.items()}
    return artifact("dialogues", tmp_path / "dialogues", files)


def test_planted_answers_are_learned_and_stopped(
    tiny_model: Artifact, dialogues: Artifact, new_place: Callable[..., Place]
) -> None:
    """Held-out accuracy and loss improve from nothing, the gate passes, the folder keeps tokenizer files and eos."""
    place = new_place()
    counts = instruct(CONFIG.model_copy(update={"epochs": 10, "learning_rate": 1e-2}), tiny_model, dialogues, place)
    assert counts.metrics["task accuracy before"]["value"] == 0.0
    assert counts.metrics["task accuracy after"]["value"] > 0.4  # half of the coins are "yes"
    assert counts.metrics["conversation loss after"]["value"] < counts.metrics["conversation loss before"]["value"] / 4
    assert [gate["passed"] for gate in counts.gates] == [True, True]
    published, source = Path(place.home) / "model", Path(tiny_model.home) / "model"
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (published / name).read_bytes() == (source / name).read_bytes()
    eos = json.loads((source / "config.json").read_text())["eos_token_id"]
    assert json.loads((published / "generation_config.json").read_text())["eos_token_id"] == eos
    text = "".join((published / name).read_text() for name in ("config.json", "generation_config.json"))
    assert str(place.scratch.parent) not in text


@pytest.mark.parametrize("rank", [0, 4])
def test_resuming_gives_the_bytes_of_an_unbroken_run(
    tiny_model: Artifact, dialogues: Artifact, new_place: Callable[..., Place], rank: int
) -> None:
    """An attempt that adopts a checkpoint in mid-training publishes the same model; no step is recorded twice."""
    config = CONFIG.model_copy(update={"lora_rank": rank})
    whole, second = new_place("whole", checkpoint_seconds=0), new_place("second", checkpoint_seconds=0)
    instruct(config, tiny_model, dialogues, whole)
    kept = sorted(piece.name for piece in whole.pieces() if piece.name.startswith("checkpoint"))
    assert len(kept) == 2
    for piece in whole.pieces():
        if piece.name in ("model", "after", kept[1]):
            whole.drop(piece)
    assert second.adopt(whole.home) == ["before", kept[0]]
    plain = new_place("plain")
    instruct(config, tiny_model, dialogues, plain)
    instruct(config, tiny_model, dialogues, second)
    assert parts_of(second.pieces())["model"].digest == parts_of(plain.pieces())["model"].digest
    steps = [
        row["step"] for row in json.loads((Path(second.home) / "records/history.json").read_text()) if "loss" in row
    ]
    assert steps == sorted(set(steps))


def test_adapters_end_in_a_plain_model(
    tiny_model: Artifact, dialogues: Artifact, new_place: Callable[..., Place]
) -> None:
    """With a rank the linear layers alone are moved, by a matrix of that rank, under the model's own names."""
    import torch
    from safetensors.torch import load_file

    place = new_place()
    instruct(CONFIG.model_copy(update={"lora_rank": 2, "epochs": 1}), tiny_model, dialogues, place)
    before = load_file(Path(tiny_model.home) / "model" / "model.safetensors")
    after = load_file(Path(place.home) / "model" / "model.safetensors")
    assert before.keys() == after.keys()
    ranks = {name: int(torch.linalg.matrix_rank(after[name] - before[name], atol=1e-6)) for name in before
             if before[name].ndim == 2}  # fmt: skip
    assert {rank for name, rank in ranks.items() if "proj" in name} == {2}
    assert all(torch.equal(after[name], before[name]) for name in before if "proj" not in name)


def test_a_damaged_checkpoint_is_not_resumed_from(
    tiny_model: Artifact, dialogues: Artifact, new_place: Callable[..., Place]
) -> None:
    """A checkpoint whose bytes do not match its mark is left behind; the older one is used."""
    whole, second = new_place("whole", checkpoint_seconds=0), new_place("second")
    instruct(CONFIG, tiny_model, dialogues, whole)
    expected = parts_of(whole.pieces())["model"].digest
    whole.drop(next(piece for piece in whole.pieces() if piece.name == "model"))
    older, newer = sorted(piece.name for piece in whole.pieces() if piece.name.startswith("checkpoint"))
    weights = Path(whole.home) / "work" / newer / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert older in second.adopt(whole.home)
    assert second.done(newer) is None
    instruct(CONFIG, tiny_model, dialogues, second)
    assert parts_of(second.pieces())["model"].digest == expected


KILLED = """
import os, sys
from pathlib import Path
from data_curation.artifact import Artifact
from data_curation.place import Place, Resources
from tests.training.conftest import artifact
from tests.training.test_instruct import CONFIG
from training.instruct import instruct
from training.trainers import CheckpointPieces

class Killer(CheckpointPieces):
    def on_step_end(self, args, state, control, **kwargs):
        super().on_step_end(args, state, control, **kwargs)
        if state.global_step == 9:
            os.kill(os.getpid(), 9)

import training.trainers
training.trainers.CheckpointPieces = Killer
model, dialogues, home, scratch = map(Path, sys.argv[1:])
place = Place(str(home), scratch, Resources(device="cpu", threads=1, checkpoint_seconds=0, log_seconds=1e9))
instruct(CONFIG, artifact("tiny", model), artifact("dialogues", dialogues), place)
"""


def test_kill_minus_nine_and_again_gives_the_same_bytes(
    tiny_model: Artifact, dialogues: Artifact, new_place: Callable[..., Place], tmp_path: Path
) -> None:
    """A process killed in step 9 leaves complete checkpoints; the next attempt ends with the unbroken run's model."""
    broken = new_place("broken")
    command = [sys.executable, "-c", KILLED, tiny_model.home, dialogues.home, broken.home, str(broken.scratch)]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    second, plain = new_place("second"), new_place("plain")
    assert any(name.startswith("checkpoint-00000") for name in second.adopt(broken.home))
    instruct(CONFIG, tiny_model, dialogues, second)
    instruct(CONFIG, tiny_model, dialogues, plain)
    assert parts_of(second.pieces())["model"].digest == parts_of(plain.pieces())["model"].digest


def test_too_long_conversations_are_counted_and_all_too_long_is_an_error(
    tiny_model: Artifact, dialogues: Artifact, new_place: Callable[..., Place]
) -> None:
    """Conversations over seq_len are dropped by name; when none is left the setting to raise is named."""
    config = CONFIG.model_copy(update={"seq_len": 30, "epochs": 0.1})
    counts = instruct(config, tiny_model, dialogues, new_place())
    assert [(row["step"], row["reason"], row["documents"]) for row in counts.funnel] == [
        ("encode", "longer than seq_len", 20), ("held-out", "longer than seq_len", 6)
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"instruct.seq_len is 5: all 140 conversations are longer"):
        instruct(CONFIG.model_copy(update={"seq_len": 5}), tiny_model, dialogues, new_place("short"))


def test_rows_are_as_long_as_the_context(
    tiny_model: Artifact, dialogues: Artifact, new_place: Callable[..., Place]
) -> None:
    """By default, so the last phase's length is trained on; longer rows than the model can read are an error."""
    config = CONFIG.model_copy(update={"seq_len": None, "epochs": 0.1})
    place = new_place()
    instruct(config, tiny_model, dialogues, place)
    folder = place.folder(place.done("model"), "model")
    context = json.loads((folder / "config.json").read_text())["max_position_embeddings"]
    assert seq_len_of(config, AutoModelForCausalLM.from_pretrained(folder)) == context
    longer = config.model_copy(update={"seq_len": context + 1})
    with pytest.raises(ConfigError, match=f"seq_len is {context + 1}: the model's context has {context} tokens"):
        instruct(longer, tiny_model, dialogues, new_place("longer"))


def test_held_out_prompts_without_room_are_counted(
    tiny_model: Artifact, dialogues: Artifact, new_place: Callable[..., Place]
) -> None:
    """Nobody is measured by an answer beyond the context; what leaves no room for one has its reason."""
    config = CONFIG.model_copy(update={"max_new_tokens": 9999, "epochs": 0.1})
    counts = instruct(config, tiny_model, dialogues, new_place())
    found = {(row["step"], row["reason"]): row["documents"] for row in counts.funnel}
    assert found == {("held-out", "prompt longer than the context"): 40}
    assert counts.metrics["task accuracy after"]["n"] == 0


def test_later_tasks_are_left_to_other_stages(
    tiny_model: Artifact, dialogues: Artifact, new_place: Callable[..., Place]
) -> None:
    """With `tasks` so many tasks are trained on, and every conversation."""
    config = CONFIG.model_copy(update={"tasks": 30, "epochs": 0.1})
    counts = instruct(config, tiny_model, dialogues, new_place())
    assert counts.taken["conversations"] == 30 + 20


def test_a_loss_that_is_no_number_stops_the_stage(
    tiny_model: Artifact, dialogues: Artifact, new_place: Callable[..., Place]
) -> None:
    """An absurd learning rate ends in an error that names the setting, never in a published model."""
    place = new_place()
    with pytest.raises(StageError, match=r"instruct.learning_rate is 1e\+30"):
        instruct(CONFIG.model_copy(update={"learning_rate": 1e30, "warmup": 0}), tiny_model, dialogues, place)
    assert place.done("model") is None
