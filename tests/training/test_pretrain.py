"""Guarantees of pretraining: its settings, its phases, its outputs, its resume."""

import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_curation.artifact import Artifact
from data_curation.files import sha256_file
from data_curation.place import Place
from data_curation.settings import InputError, StageError, TransientError
from data_curation.shard_index import Index
from data_curation.shard_writer import write_folder
from tests.training.conftest import artifact
from tests.training.phases import CURVES, TINY, config, digests, documents, losses, published
from training import loop
from training.pretrain import Phase, pretrain


def test_phases_carry_model_optimizer_and_place_in_the_data(
    shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place]
) -> None:
    """The second phase goes on from the first; its folder loads in transformers with its own length and rope."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    first, second = new_place("first"), new_place("second")
    before = pretrain(config().run_of(0), shards, tokenizer, None, first)
    after = pretrain(config().run_of(1), shards, tokenizer, published(first), second)
    assert after.metrics["train_loss"]["value"] < before.metrics["train_loss"]["value"]
    output = published(second)
    folder = output.folder("model", second.scratch)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.max_position_embeddings == 64
    assert model.config.rope_parameters["rope_theta"] == 50_000.0
    assert model.generation_config.eos_token_id == AutoTokenizer.from_pretrained(folder).eos_token_id
    assert sha256_file(str(folder / "tokenizer.json")) == sha256_file(tokenizer.uri("tokenizer", "tokenizer.json"))
    state = output.read_json("state", "state.json")
    assert (state["steps"], state["tokens"]) == (9, 9 * 256)
    from safetensors.numpy import load_file

    moments = load_file(output.folder("state", second.scratch) / "optimizer.safetensors")
    assert {float(value) for name, value in moments.items() if name.endswith(".step")} == {9.0}


@pytest.mark.parametrize("last", [1, 4, 5])
def test_a_resumed_phase_equals_an_unbroken_one_byte_for_byte(
    last: int, shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at any step and taken over by another attempt, model and state have the bytes of an unbroken run."""
    unbroken = new_place("unbroken", checkpoint_seconds=1e9)
    pretrain(config().run_of(0), shards, tokenizer, None, unbroken)

    broken, again = new_place("broken", checkpoint_seconds=0), new_place("again", checkpoint_seconds=0)
    step = loop.Trainer.step

    def stop(trainer: loop.Trainer, state: Any) -> None:
        if state.step == last:
            raise KeyboardInterrupt
        step(trainer, state)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(loop.Trainer, "step", stop)
        pretrain(config().run_of(0), shards, tokenizer, None, broken)
    kept = again.adopt(broken.home)
    assert kept == [f"checkpoint-{number:06d}" for number in sorted({0, max(0, last - 1), last})]
    steps: list[int] = []

    def count(trainer: loop.Trainer, state: Any) -> None:
        steps.append(state.step)
        step(trainer, state)

    with monkeypatch.context() as patched:
        patched.setattr(loop.Trainer, "step", count)
        pretrain(config().run_of(0), shards, tokenizer, None, again)
    assert steps == list(range(last, 6))
    assert digests(published(again)) == digests(published(unbroken))
    assert set(published(again).parts) == {"model", "state"}
    assert again.done("model") is not None and len(again.pieces()) == 1


def test_sigterm_saves_and_ends(
    shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step in hand is finished and kept; run again, the rest gives the bytes of an unbroken run."""
    unbroken = new_place("unbroken")
    pretrain(config().run_of(0), shards, tokenizer, None, unbroken)
    place, step, sent = new_place("ended"), loop.Trainer.step, []

    def end(trainer: loop.Trainer, state: Any) -> None:
        if state.step == 2 and not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGTERM)
        step(trainer, state)

    monkeypatch.setattr(loop.Trainer, "step", end)
    with pytest.raises(TransientError, match="ended: SIGTERM ended it after step 3; run it again"):
        pretrain(config().run_of(0), shards, tokenizer, None, place)
    assert [piece.name for piece in place.pieces()] == ["checkpoint-000000", "checkpoint-000003"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    pretrain(config().run_of(0), shards, tokenizer, None, place)
    assert digests(published(place)) == digests(published(unbroken))


def test_a_finished_phase_is_not_trained_again(
    shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt that adopts the complete output gives its counts without a step."""
    place = new_place("done")
    counts = pretrain(config().run_of(0), shards, tokenizer, None, place)
    again = new_place("later")
    again.adopt(place.home)
    monkeypatch.setattr(loop, "train", None)
    assert pretrain(config().run_of(0), shards, tokenizer, None, again).metrics == counts.metrics


def test_training_that_diverged_is_given_up(
    shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place]
) -> None:
    """Steps that no rewind heals end the stage with reason, remedy and documents; the last checkpoint is finite."""
    wild = Phase(seq_len=32, tokens=30 * 256, learning_rate=1e30)
    place = new_place("wild", checkpoint_seconds=0)
    with pytest.raises(
        StageError, match=r"wild: 5 of 10 steps were skipped, step \d+ because (loss|grad).*after 3 rewinds.*\(0{28}"
    ):
        pretrain(config(phases=[wild]).run_of(0), shards, tokenizer, None, place)
    files = list(Path(place.home).rglob("*.tensors"))
    assert files and all(np.isfinite(np.fromfile(path, np.float32)).all() for path in files)


def test_a_step_whose_gradient_is_no_number_is_skipped_and_counted(
    shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights before it are those after it, its data are passed over, and the stage says so."""
    from safetensors.torch import load_file

    before: dict[str, Any] = {}
    backward, step = loop.Trainer._backward, loop.Trainer.step

    def watch(trainer: loop.Trainer, state: Any) -> None:
        if state.step == 5:
            before.update({name: value.clone() for name, value in trainer.model.state_dict().items()})
        step(trainer, state)

    def spoil(trainer: loop.Trainer, batch: Any, scale: Any) -> Any:
        loss = backward(trainer, batch, scale)
        if before:
            next(trainer.model.parameters()).grad[0, 0] = float("nan")
        return loss

    monkeypatch.setattr(loop.Trainer, "_backward", spoil)
    monkeypatch.setattr(loop.Trainer, "step", watch)
    place = new_place("spoilt")
    counts = pretrain(config().run_of(0), shards, tokenizer, None, place)
    assert counts.metrics["skipped_steps"]["value"] == 1
    assert any("the last one, 5, because gradient norm is nan" in text for text in counts.warnings)
    after = load_file(published(place).folder("model", place.scratch) / "model.safetensors")
    assert all((after[name] == before[name]).all() for name in after)


def test_a_full_gpu_is_named_with_its_remedies(
    shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torch raises when an allocation fails ends the stage with the settings that need less."""

    def full(trainer: loop.Trainer, batch: Any, scale: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore words")

    monkeypatch.setattr(loop.Trainer, "_backward", full)
    wanted = r"full: its passes do not fit.*micro_batch_tokens.*recompute.*\(CUDA out of memory.*2\.00 GiB\.\)"
    with pytest.raises(StageError, match=wanted):
        pretrain(config().run_of(0), shards, tokenizer, None, new_place("full"))


@pytest.mark.parametrize("family", CURVES)
@pytest.mark.parametrize("tokens", [32, 64, 2048])
def test_one_loss_curve_for_every_micro_batch(
    family: Any, tokens: int, shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place]
) -> None:
    """One, two or eight rows at a time give the stored curve, within the rounding of float32."""
    place = new_place("curve", micro_batch_tokens=tokens)
    model = TINY.model_copy(update={"family": family})
    pretrain(config(model=model).run_of(0), shards, tokenizer, None, place)
    assert losses(place) == pytest.approx(CURVES[family], rel=2e-5)


def test_another_tokenizer_or_other_shards_are_refused(
    shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place], tmp_path: Path
) -> None:
    """Shards made with another tokenizer, and a last phase trained on other shards, are named."""
    folder = Path(tokenizer.uri("tokenizer"))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = artifact(
        "other", tmp_path / "other", {"tokenizer": files | {"tokenizer.json": files["tokenizer.json"] + b" "}}
    )
    with pytest.raises(InputError, match="not the tokenizer that made"):
        pretrain(config().run_of(0), shards, other, None, new_place("one"))
    first = new_place("first")
    pretrain(config().run_of(0), shards, tokenizer, None, first)
    digest = hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
    write_folder(tmp_path / "more" / "shards", Index(300, 0, digest, ("made",), ("en",)), documents(61, 300))
    with pytest.raises(InputError, match="this state belongs to other batches: shards"):
        pretrain(
            config().run_of(1), artifact("shard", tmp_path / "more"), tokenizer, published(first), new_place("two")
        )


def test_half_precision_keeps_weights_in_single(
    shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place]
) -> None:
    """With `dtype: bfloat16` the loss falls as in float32 and the published weights are float32."""
    from safetensors.numpy import load_file

    found = []
    for dtype in ("float32", "bfloat16"):
        place = new_place(dtype)
        found.append(
            pretrain(config(dtype=dtype).run_of(0), shards, tokenizer, None, place).metrics["train_loss"]["value"]
        )
        weights = load_file(published(place).folder("model", place.scratch) / "model.safetensors")
        assert {str(weight.dtype) for weight in weights.values()} == {"float32"}
    assert found[1] == pytest.approx(found[0], rel=0.02)


def test_plots_and_records_are_kept_by_step(
    shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place]
) -> None:
    """Loss and learning rate lie beside the output, one point per step."""
    place = new_place("seen")
    pretrain(config().run_of(0), shards, tokenizer, None, place)
    for name in ("loss", "learning-rate"):
        plot = json.loads(Path(place.home, "records", f"plot-{name}.json").read_text())
        assert len(plot["series"][name]) == 6
