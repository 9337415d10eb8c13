"""Guarantees of checkpoints: complete or absent, exact, few, and of this model."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from data_curation.place import Place
from data_curation.settings import InputError
from training.checkpoint import (
    SkippedStep,
    State,
    StepRecord,
    load_checkpoint,
    load_state,
    save_checkpoint,
    save_state,
)


def pair(width: int = 4) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model whose parameters lie in two groups of the optimizer, in another order than in the model."""
    model = nn.Sequential(nn.Linear(3, width), nn.Linear(width, 1))
    groups = [{"params": list(model[1].parameters()), "weight_decay": 0.1}, {"params": list(model[0].parameters())}]
    return model, torch.optim.AdamW(groups, lr=0.1, fused=True)


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    """Optimizer steps on data that follow from the model alone."""
    for _ in range(number):
        optimizer.zero_grad()
        (model(torch.ones(2, 3)) - 1).square().sum().backward()
        optimizer.step()


def weights(model: nn.Module) -> list[list[float]]:
    """All parameters as plain numbers."""
    return [parameter.flatten().tolist() for parameter in model.parameters()]


def state(step: int) -> State:
    """A state with one record per step; its numbers have no short decimal form."""
    taken = [StepRecord(index, 1 / 3 + index, 8, 20, 0.1 / 3, 2**0.5) for index in range(step)]
    return State(step, taken, [SkippedStep(step, "loss is nan")])


def test_training_goes_on_exactly_where_the_checkpoint_was_made(new_place: Callable[..., Place]) -> None:
    """Model, optimizer, counters and place in the data come back with every bit."""
    place, (model, optimizer) = new_place("one"), pair()
    steps(model, optimizer, 3)
    save_checkpoint(place, model, optimizer, state(3), {"step": 3})
    steps(model, optimizer, 2)
    again = pair()
    assert load_checkpoint(place, *again) == (state(3), {"step": 3})
    steps(*again, 2)
    assert weights(again[0]) == weights(model)


def test_the_newest_two_are_kept_and_the_newest_is_taken(new_place: Callable[..., Place]) -> None:
    """Older checkpoints leave nothing behind; step 10 counts as newer than step 9."""
    place, (model, optimizer) = new_place("one"), pair()
    for step in (8, 9, 10):
        steps(model, optimizer, 1)
        save_checkpoint(place, model, optimizer, state(step), {})
    assert [piece.name for piece in place.pieces()] == ["checkpoint-000009", "checkpoint-000010"]
    found = {path.parent.name for path in Path(place.home).rglob("*.safetensors")}
    assert found == {"checkpoint-000009", "checkpoint-000010"}
    loaded = load_checkpoint(place, *pair())
    assert loaded is not None and loaded[0].step == 10


def test_a_checkpoint_that_was_not_finished_does_not_exist(new_place: Callable[..., Place]) -> None:
    """Files without their mark, as a kill leaves them, are passed over for the complete one before."""
    place, (model, optimizer) = new_place("one"), pair()
    for step in (1, 2):
        steps(model, optimizer, 1)
        save_checkpoint(place, model, optimizer, state(step), {})
    Path(place.home, "work", "pieces", "checkpoint-000002.json").unlink()
    loaded = load_checkpoint(place, *pair())
    assert loaded is not None and loaded[0].step == 1
    assert load_checkpoint(new_place("other"), *pair()) is None


def test_a_damaged_checkpoint_is_not_opened(new_place: Callable[..., Place]) -> None:
    """A flipped byte is named before any tensor is read."""
    place, (model, optimizer) = new_place("one"), pair()
    steps(model, optimizer, 1)
    save_checkpoint(place, model, optimizer, state(1), {})
    path = Path(place.home, "work", "checkpoint-000001", "model.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"model\.safetensors: damaged"):
        load_checkpoint(place, *pair())


def test_state_goes_by_the_names_of_parameters(tmp_path: Path) -> None:
    """The published state fits an optimizer with other groups, and no other model."""
    model, optimizer = pair()
    steps(model, optimizer, 2)
    save_state(model, optimizer, {"steps": 2}, tmp_path)
    other = pair()[0]
    other.load_state_dict(model.state_dict())
    single = torch.optim.AdamW(other.parameters(), lr=0.1, fused=True)
    assert load_state(other, single, tmp_path)["steps"] == 2
    mine, theirs = (dict(m.named_parameters()) for m in (model, other))
    for name in mine:
        assert torch.equal(optimizer.state[mine[name]]["exp_avg"], single.state[theirs[name]]["exp_avg"])
    bigger = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1), nn.Linear(1, 1))
    with pytest.raises(InputError, match="belongs to another model"):
        load_state(bigger, torch.optim.AdamW(bigger.parameters()), tmp_path)
    (tmp_path / "state.json").write_text('{"format": 2}')
    with pytest.raises(InputError, match="format 2, this release reads 1"):
        load_state(model, optimizer, tmp_path)
