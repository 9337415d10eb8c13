"""Guarantees of checkpoints: complete or absent, exact, few, hash-checked, and of this model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from data_curation.place import Place
from data_curation.settings import InputError
from training import optimizers
from training.checkpoint import HORIZON, Checkpoints
from training.handover import load_state, save_state
from training.parallel import Ranks
from training.state import Rewind, SkippedStep, State, StepRecord

Pair = tuple[nn.Module, torch.optim.Optimizer]


def pair(width: int = 4) -> Pair:
    """A model whose parameters lie in two groups of the optimizer, in another order than in the model."""
    model = nn.Sequential(nn.Linear(3, width), nn.Linear(width, 1))
    groups = [{"params": list(model[1].parameters()), "weight_decay": 0.1}, {"params": list(model[0].parameters())}]
    optimizer = torch.optim.AdamW(groups, lr=0.1, fused=True)
    optimizers.begin(model, optimizer)
    return model, optimizer


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


def saved(place: Place, some: Pair, numbers: list[int]) -> None:
    """Checkpoints after so many steps, one step of the optimizer between."""
    with Checkpoints(place, Ranks(), *some) as checkpoints:
        for step in numbers:
            steps(*some, 1)
            checkpoints.save(state(step), {"step": step})


def loaded(place: Place, some: Pair) -> tuple[State, dict[str, Any]] | None:
    """What the newest good checkpoint says, with the pair set to it."""
    with Checkpoints(place, Ranks(), *some) as checkpoints:
        return checkpoints.load()


@pytest.mark.parametrize("store", ["disk", "s3"])
def test_training_goes_on_exactly_where_the_checkpoint_was_made(
    store: str, new_place: Callable[..., Place], request: pytest.FixtureRequest
) -> None:
    """Model, optimizer, counters and place in the data come back with every bit, from disk and from s3."""
    place, some = new_place("one"), pair()
    if store == "s3":
        place = Place(request.getfixturevalue("bucket"), place.scratch, place.resources, place.name)
    with Checkpoints(place, Ranks(), *some) as checkpoints:
        steps(*some, 3)
        checkpoints.save(state(3), {"step": 3})
        steps(*some, 2)  # while it is written
    again = pair()
    assert loaded(place, again) == (state(3), {"step": 3})
    steps(*again, 2)
    assert weights(again[0]) == weights(some[0])


def test_few_are_kept_and_the_newest_is_taken(new_place: Callable[..., Place]) -> None:
    """The newest two, and one from before the horizon or the first; step 10 counts as newer than step 9."""
    place, some = new_place("one"), pair()
    saved(place, some, [0, 8, 9, 10])
    assert [piece.name for piece in place.pieces()] == [f"checkpoint-{step:06d}" for step in (0, 9, 10)]
    assert {path.parent.name for path in Path(place.home).rglob("*.tensors")} == {
        piece.name for piece in place.pieces()
    }
    found = loaded(place, pair())
    assert found is not None and found[0].step == 10
    saved(place, some, [10 + HORIZON, 11 + HORIZON])
    assert [int(piece.name[-6:]) for piece in place.pieces()] == [10, 10 + HORIZON, 11 + HORIZON]
    saved(place, some, [3 * HORIZON, 4 * HORIZON])
    assert [int(piece.name[-6:]) for piece in place.pieces()] == [3 * HORIZON, 4 * HORIZON]


def test_a_checkpoint_that_was_not_finished_does_not_exist(new_place: Callable[..., Place]) -> None:
    """Files without their mark, as a kill leaves them, are passed over for the complete one before."""
    place = new_place("one")
    saved(place, pair(), [1, 2])
    Path(place.home, "work", "pieces", "checkpoint-000002.json").unlink()
    found = loaded(place, pair())
    assert found is not None and found[0].step == 1
    assert loaded(new_place("other"), pair()) is None


@pytest.mark.parametrize("name", ["rank-00000.tensors", "index.json", "state.json"])
@pytest.mark.parametrize("how", ["flipped", "missing"])
def test_a_damaged_checkpoint_is_passed_over(name: str, how: str, new_place: Callable[..., Place]) -> None:
    """A flipped byte or a missing file is noticed before anything is used; without another checkpoint it is named."""
    place, some = new_place("one"), pair()
    saved(place, some, [1])
    after_one = weights(some[0])
    saved(place, some, [2])
    _harm(Path(place.home, "work", "checkpoint-000002", name), how)
    again = pair()
    found = loaded(place, again)
    assert found is not None and found[0].step == 1
    assert weights(again[0]) == after_one
    _harm(Path(place.home, "work", "checkpoint-000001", name), how)
    with pytest.raises(InputError, match=rf"checkpoint-000001/{name}: (damaged|missing)"):
        loaded(place, pair())


def _harm(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()
    if how == "flipped":
        path.write_bytes(bytes(data))


def test_a_checkpoint_of_another_model_is_refused(new_place: Callable[..., Place]) -> None:
    """The first tensor that is on one side only is named."""
    place = new_place("one")
    saved(place, pair(), [1])
    model = nn.Sequential(nn.Linear(3, 4))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    optimizers.begin(model, optimizer)
    with pytest.raises(InputError, match=r"checkpoint-000001 is of another model or optimizer: model\.1\.bias"):
        loaded(place, (model, optimizer))


def test_a_write_that_fails_is_an_error_of_the_training(new_place: Callable[..., Place]) -> None:
    """What goes wrong in the background is raised by the next save, as the error that it was."""
    place, some = new_place("one"), pair()
    Path(place.home).mkdir()
    Path(place.home, "work").write_text("a file where a folder should be")
    with pytest.raises((NotADirectoryError, FileExistsError)), Checkpoints(place, Ranks(), *some) as checkpoints:
        checkpoints.save(state(1), {})
        checkpoints.save(state(2), {})


def test_a_rewind_takes_back_what_was_made_after_it(new_place: Callable[..., Place]) -> None:
    """Checkpoints of the steps that are stepped over are bad ones, also when a kill has left them in place."""
    place, some = new_place("one"), pair()
    saved(place, some, [0, 5, 8])
    back = Rewind(5, 9, "loss is nan")
    with Checkpoints(place, Ranks(), *some) as checkpoints:
        checkpoints.rewind(back)
        found = checkpoints.load()
    assert found is not None and (found[0].step, found[0].rewinds) == (5, [back])
    assert found[0].passed() == {5, 6, 7, 8}
    saved(place, some, [8])  # an earlier attempt's, adopted after the decision
    found = loaded(place, pair())
    assert found is not None and found[0].step == 5


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
