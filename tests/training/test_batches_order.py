"""One stream of batches for every world size and interruption; a state of other batches is refused."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_curation.settings import InputError
from tests.training.numbered import FIELDS, MIXED, MIXES, PHASES, equal, shards, sizes_of
from training.batches import Batch, Batches
from training.mixing import MixConfig


@pytest.fixture
def batches(folder: Path) -> Batches:
    """Three phases of growing lengths that together take exactly one epoch, then one more epoch."""
    return Batches(folder, seed=3, tokens_per_step=4096, phases=[(256, 20), (1024, 8), (4096, 4), (4096, 32)])


def test_one_stream_for_every_world_and_interruption(folder: Path) -> None:
    """With 1, 2 and 4 ranks, killed at random steps and resumed on another world, the token stream is the same."""
    whole = Batches(folder, **MIXED)
    for seed in range(3):
        chance = random.Random(seed)
        for phase, (_, steps) in enumerate(PHASES):
            given = MIXED | {"phases": PHASES[: phase + 1], "mixes": MIXES[: phase + 1]}
            state = Batches(folder, **given).state(phase, 0)
            while (step := state["step"]) < steps:
                world = chance.choice([1, 2, 4])
                ranks = [Batches(folder, **given) for _ in range(world)]
                step = {one.resume(state, phase) for one in ranks}.pop()
                for _ in range(min(chance.randint(1, 7), steps - step)):
                    shares = [one.share(phase, step, rank, world) for rank, one in enumerate(ranks)]
                    joined = Batch(*(np.concatenate([getattr(share, name) for share in shares]) for name in FIELDS))
                    assert equal(joined, whole.batch(phase, step))
                    step += 1
                state = ranks[-1].state(phase, step)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"phases": [(512, 20), (1024, 8)]}, "phases"),
        ({"mixes": [MixConfig(), MixConfig(long_share=0.5)]}, "mixes is .* here it is .*0.5"),
        ({"phases": [(256, 20), (2048, 8)]}, "seq_len is 1024, here it is 2048"),
        ({"seed": 4}, "seed is 3, here it is 4"),
        ({"tokens_per_step": 8192}, "tokens_per_step is 4096"),
    ],
)
def test_a_state_of_other_batches_is_refused(folder: Path, change: dict[str, Any], words: str) -> None:
    """Another length, seed or step size than at the checkpoint is named, with both values."""
    given: dict[str, Any] = {"seed": 3, "tokens_per_step": 4096, "phases": [(256, 20), (1024, 8)]}
    state = Batches(folder, **given).state(1, 5)
    other = Batches(folder, **{**given, **change})
    with pytest.raises(InputError, match=words):
        other.resume(state, 1)
    assert other.fingerprint() != Batches(folder, **given).fingerprint()


def test_a_state_of_another_phase_or_data_set_is_refused(folder: Path, batches: Batches, tmp_path: Path) -> None:
    """The digest of the shards is part of the state, and so is the phase; a phase's own state resumes."""
    state = batches.state(1, 5)
    assert batches.resume(state, 1) == 5
    with pytest.raises(InputError, match="phase is 1, here it is 2"):
        batches.resume(state, 2)
    other = Batches(shards(tmp_path, sizes_of(1 << 17, seed=1)), seed=3, tokens_per_step=4096, phases=batches.phases)
    with pytest.raises(InputError, match="shards is"):
        other.resume(state, 1)


def test_any_step_is_reached_directly(folder: Path, batches: Batches) -> None:
    """A batch depends on phase and step, not on what was read before, nor on what phases follow."""
    late = batches.batch(1, 5)
    assert equal(late, Batches(folder, seed=3, tokens_per_step=4096, phases=[(256, 20), (1024, 8)]).batch(1, 5))
    assert not equal(late, Batches(folder, seed=4, tokens_per_step=4096, phases=batches.phases).batch(1, 5))


def test_the_order_is_the_same_in_every_release(tmp_path: Path) -> None:
    """A run of last year resumes on the same tokens: the first tokens of some batches, written down."""
    shards(tmp_path, [4] * 64)
    made = Batches(tmp_path, seed=7, tokens_per_step=16, phases=[(4, 16), (8, 2)])
    first = [made.batch(phase, step).tokens[0, 0] for phase, step in ((0, 0), (0, 1), (0, 15), (1, 0))]
    assert first == [
        156,
        204,
        0,
        36,
    ]
