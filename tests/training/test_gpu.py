"""Guarantees of pretraining on a GPU, where there is one: every kernel trains as the CPU does."""

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from data_curation.artifact import Artifact
from data_curation.place import Place
from tests.training.phases import config, digests, losses, published
from training.architecture import ModelConfig
from training.attention import kernel_for
from training.pretrain import Phase, pretrain
from training.state import State
from training.step import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
MODEL = ModelConfig(family="qwen3", hidden_size=256, layers=2, heads=2, kv_heads=1, intermediate_size=256)
PHASE = Phase(seq_len=256, tokens=6 * 2048, learning_rate=3e-3, warmup_steps=2)


def trained(place: Place, shards: Artifact, tokenizer: Artifact, **given: Any) -> list[float]:
    """Losses of six steps of packed rows."""
    settings = {"model": MODEL, "tokens_per_step": 2048, "dtype": "bfloat16", "phases": [PHASE], **given}
    pretrain(config(**settings).run_of(0), shards, tokenizer, None, place)
    return losses(place)


@pytest.mark.parametrize("attention", ["flash4", "flex", "flash2", "sdpa"])
@pytest.mark.parametrize("recompute", ["none", "attention", "full"])
def test_every_kernel_and_recomputation_gives_the_curve_of_the_cpu(
    attention: Any, recompute: Any, shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place]
) -> None:
    """Within the rounding of bfloat16, through the whole loop, in micro-batches."""
    if attention == "flash4" and kernel_for(torch.device("cuda"), "auto", 256) != "flash4":
        pytest.skip("FlashAttention-4 is not installed")
    cpu = trained(new_place("cpu"), shards, tokenizer, dtype="float32")
    place = new_place("gpu", device="cuda", micro_batch_tokens=1024)
    assert trained(place, shards, tokenizer, attention=attention, recompute=recompute) == pytest.approx(cpu, rel=0.01)


@pytest.mark.parametrize("fusion", ["triton", "quack"])
@pytest.mark.parametrize("recompute", ["none", "attention"])
def test_kernels_between_products_give_the_curve_of_the_cpu(
    fusion: Any, recompute: Any, shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place]
) -> None:
    """Norms and rotation by Triton, SwiGLU inside its products by quack: within the rounding of bfloat16."""
    if fusion == "quack" and importlib.util.find_spec("quack") is None:
        pytest.skip("quack-kernels is not installed")
    cpu = trained(new_place("cpu"), shards, tokenizer, dtype="float32")
    place = new_place("gpu", device="cuda", micro_batch_tokens=1024)
    assert trained(place, shards, tokenizer, fusion=fusion, recompute=recompute) == pytest.approx(cpu, rel=0.01)


@pytest.mark.parametrize("recompute", ["none", "attention", "full"])
def test_products_in_8_bits_give_nearly_the_curve_of_the_cpu(
    recompute: Any, shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place]
) -> None:
    """Within the rounding of three binary digits; whatever is computed again, the same."""
    if torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("needs a GPU of compute capability 9.0")
    # At three times the rate steps part so fast that the same products, emulated on a CPU, end 2.5% off as well.
    slow = {"phases": [PHASE.model_copy(update={"learning_rate": 1e-3})]}
    cpu = trained(new_place("cpu"), shards, tokenizer, dtype="float32", **slow)
    place = new_place("gpu", device="cuda", micro_batch_tokens=1024)
    found = trained(place, shards, tokenizer, dtype="float8", recompute=recompute, **slow)
    assert found == pytest.approx(cpu, rel=0.02)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="two GPUs are needed")
@pytest.mark.parametrize("given", [{}, {"shard_ranks": 1}, {"context_ranks": 2}], ids=["shares", "copies", "rows"])
def test_two_gpus_give_the_curve_of_the_cpu(
    given: dict[str, int], shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place]
) -> None:
    """Sharing the weights, with a copy each, and sharing rows of packed documents: within bfloat16's rounding."""
    long = {"phases": [PHASE.model_copy(update={"seq_len": 512})]}  # whole blocks of attention for each of two ranks
    cpu = trained(new_place("cpu"), shards, tokenizer, dtype="float32", **long)
    place = new_place("gpus", device="cuda", ranks=2, micro_batch_tokens=1024, **given)
    assert trained(place, shards, tokenizer, **long) == pytest.approx(cpu, rel=0.01)


@pytest.fixture
def deterministic() -> Iterator[None]:
    """torch's deterministic algorithms, where there are some."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic")
def test_a_run_on_a_gpu_is_repeatable_where_its_kernels_are(
    shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place]
) -> None:
    """With deterministic algorithms two runs publish the same bytes."""
    places = [new_place(name, device="cuda") for name in ("one", "two")]
    for place in places:
        trained(place, shards, tokenizer, attention="flex")
    assert digests(published(places[0])) == digests(published(places[1]))


@pytest.mark.usefixtures("deterministic")
def test_a_resumed_run_on_a_gpu_equals_an_unbroken_one(
    shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between checkpoints that were written while it trained, it ends with the same bytes."""
    unbroken, broken, again = (new_place(name, device="cuda", checkpoint_seconds=0) for name in ("one", "two", "three"))
    trained(unbroken, shards, tokenizer, attention="flex")
    step = Trainer.step

    def stop(trainer: Trainer, state: State) -> None:
        if state.step == 4:
            raise KeyboardInterrupt
        step(trainer, state)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Trainer, "step", stop)
        trained(broken, shards, tokenizer, attention="flex")
    assert "checkpoint-000004" in again.adopt(broken.home)
    trained(again, shards, tokenizer, attention="flex")
    assert digests(published(again)) == digests(published(unbroken))
