"""Batches: every token of an epoch once, exact labels, and one stream for every world size and interruption."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_curation.settings import ConfigError, InputError
from data_curation.shard_writer import write_folder
from data_curation.shards import Document, Index
from training.batches import IGNORED, Batch, Batches

FIELDS = ("tokens", "labels", "positions", "documents")


def shards(folder: Path, sizes: Sequence[int]) -> Path:
    """Documents of these many tokens; tokens count 0, 1, 2, ... through all documents, so each is there once."""
    index = Index(1 << 24, 0, "", ("web",), ("en",))
    ends = np.cumsum(sizes)
    documents = [
        Document(f"{number:032x}", "web", "en", 1, np.arange(end - size, end, dtype=np.uint32))
        for number, (size, end) in enumerate(zip(sizes, ends, strict=True))
    ]
    write_folder(folder, index, documents)
    return folder


def sizes_of(total: int, seed: int = 0, longest: int = 5000) -> list[int]:
    """Lengths as in web text: most of them short, a few very long; together exactly `total` tokens."""
    chance, sizes = random.Random(seed), list[int]()
    while (left := total - sum(sizes)) > 0:
        sizes.append(min(left, longest, max(2, int(chance.lognormvariate(5, 1.2)))))
    return sizes


def stream(batches: Batches) -> list[Batch]:
    """All batches of all phases in order."""
    return [batches.batch(phase, step) for phase, (_, steps) in enumerate(batches.phases) for step in range(steps)]


def equal(one: Batch, other: Batch) -> bool:
    """Whether two batches hold the same numbers."""
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in FIELDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One epoch of 131,072 tokens in documents of many lengths."""
    return shards(tmp_path_factory.mktemp("shards"), sizes_of(1 << 17))


@pytest.fixture
def batches(folder: Path) -> Batches:
    """Three phases of growing lengths that together take exactly one epoch, then one more epoch."""
    return Batches(folder, seed=3, tokens_per_step=4096, phases=[(256, 20), (1024, 8), (4096, 4), (4096, 32)])


def test_labels_positions_and_documents_by_hand(tmp_path: Path) -> None:
    """Documents of 5, 3 and 10 tokens in rows of 6: 10 is cut into 6 + 4, then 3 into the holes of 2 and 1."""
    shards(tmp_path, [5, 3, 10])  # tokens 0-4, 5-7, 8-17
    batch = Batches(tmp_path, seed=0, tokens_per_step=18, phases=[(6, 1)]).batch(0, 0)
    rows = sorted(zip(*(getattr(batch, name).tolist() for name in FIELDS), strict=True))
    x = IGNORED
    assert rows == [
        ([0, 1, 2, 3, 4, 7], [1, 2, 3, 4, x, x], [0, 1, 2, 3, 4, 0], [0, 0, 0, 0, 0, 1]),
        ([5, 6, 14, 15, 16, 17], [6, x, 15, 16, 17, x], [0, 1, 0, 1, 2, 3], [0, 0, 1, 1, 1, 1]),
        ([8, 9, 10, 11, 12, 13], [9, 10, 11, 12, 13, x], [0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 0, 0]),
    ]


def test_no_token_of_an_epoch_is_lost_or_comes_twice(batches: Batches) -> None:
    """Through three phases of different lengths each token comes once, and in the next epoch once more."""
    tokens = [batch.tokens.ravel() for batch in stream(batches)]
    first, second = np.concatenate(tokens[:32]), np.concatenate(tokens[32:])
    assert np.array_equal(np.sort(first), np.arange(1 << 17))
    assert np.array_equal(np.sort(second), np.arange(1 << 17))
    assert not np.array_equal(first, second)


def test_labels_are_the_next_token_of_the_same_document(batches: Batches) -> None:
    """Each label is its token's successor; all is ignored but inside pieces; positions and numbers restart."""
    ends = set((np.cumsum(sizes_of(1 << 17)) - 1).tolist())
    for batch in stream(batches):
        trained = batch.labels != IGNORED
        assert np.array_equal(batch.labels[trained], batch.tokens[trained] + 1)
        assert not ends & set(batch.tokens[trained].tolist())
        new = np.diff(batch.documents, axis=1) == 1
        assert np.array_equal(~trained[:, :-1], new) and not trained[:, -1].any()
        assert np.array_equal(batch.positions[:, 1:] == 0, new) and not batch.positions[:, 0].any()
        assert np.array_equal(np.diff(batch.positions, axis=1)[~new], np.ones((~new).sum()))
        assert not batch.documents[:, 0].any()


def test_rows_are_full_and_few_documents_are_cut(folder: Path) -> None:
    """No padding, and of the documents that fit a row fewer than 2% are cut."""
    sizes = sizes_of(1 << 17)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    for length in (1024, 4096):
        pieces = np.zeros(len(sizes), int)
        for batch in stream(Batches(folder, seed=0, tokens_per_step=8192, phases=[(length, 16)])):
            assert batch.tokens.shape == (8192 // length, length) and (batch.documents >= 0).all()
            pieces += np.bincount(owner[batch.tokens[batch.positions == 0]], minlength=len(sizes))
        fitting = np.array(sizes) <= length
        assert (pieces[fitting] > 1).mean() < 0.02
        assert (pieces[~fitting] >= np.ceil(np.array(sizes)[~fitting] / length)).all()


def test_one_stream_for_every_world_and_interruption(folder: Path, batches: Batches) -> None:
    """With 1, 2 and 4 ranks, killed at random steps and resumed on another world, the token stream is the same."""
    chance = random.Random(0)
    given: dict[str, Any] = {"seed": 3, "tokens_per_step": 4096}
    for phase in range(len(batches.phases) - 1):
        phases, step = batches.phases[: phase + 1], 0
        while step < phases[phase][1]:
            world = chance.choice([1, 2, 4]) if batches.rows(phase) >= 4 else 1
            ranks = [Batches(folder, **given, phases=phases) for _ in range(world)]
            for _ in range(chance.randint(1, 6)):
                if step == phases[phase][1]:
                    break
                shares = [one.share(phase, step, rank, world) for rank, one in enumerate(ranks)]
                whole = Batch(*(np.concatenate([getattr(share, name) for share in shares]) for name in FIELDS))
                assert equal(whole, batches.batch(phase, step))
                step += 1
            step = Batches(folder, **given, phases=phases).resume(ranks[0].state(phase, step), phase)


def test_any_step_is_reached_directly(folder: Path, batches: Batches) -> None:
    """A batch depends on phase and step, not on what was read before, nor on what phases follow."""
    late = batches.batch(1, 5)
    assert equal(late, Batches(folder, seed=3, tokens_per_step=4096, phases=[(256, 20), (1024, 8)]).batch(1, 5))
    assert not equal(late, Batches(folder, seed=4, tokens_per_step=4096, phases=batches.phases).batch(1, 5))


def test_the_order_is_the_same_in_every_release(tmp_path: Path) -> None:
    """A run of last year resumes on the same tokens: the first tokens of some batches, written down."""
    shards(tmp_path, [4] * 64)
    made = Batches(tmp_path, seed=7, tokens_per_step=16, phases=[(4, 16), (8, 2)])
    assert [made.batch(phase, step).tokens[0, 0] for phase, step in ((0, 0), (0, 1), (0, 15), (1, 0))] == [
        240,
        40,
        8,
        208,
    ]


def test_windows_and_epochs_join_without_a_seam(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With windows of two steps and epochs that end inside a window, each epoch still has every token once."""
    monkeypatch.setattr("training.batches.WINDOW_TOKENS", 3 * 4096)
    made = Batches(folder, seed=1, tokens_per_step=3 * 1024, phases=[(512, 50), (1024, 78)])
    counts = np.bincount(np.concatenate([batch.tokens.ravel() for batch in stream(made)]), minlength=1 << 17)
    assert counts.tolist() == [3] * (1 << 17)
    assert made.epochs(1, 78) == 3.0 and made.epochs(0, 0) == 0.0


def test_a_document_longer_than_many_steps_is_used_up(tmp_path: Path) -> None:
    """A document of 100,000 tokens beside three short ones goes through whole, in rows of 128."""
    shards(tmp_path, [100, 100_000, 52, 200])
    made = Batches(tmp_path, seed=0, tokens_per_step=1024, phases=[(128, 98)])
    counts = np.bincount(np.concatenate([batch.tokens.ravel() for batch in stream(made)]), minlength=100_352)
    assert counts.tolist() == [1] * 100_352


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"phases": [(512, 20), (1024, 8)]}, "phases"),
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


def test_impossible_settings_are_named(folder: Path, batches: Batches) -> None:
    """Lengths that do not divide a step, ranks that do not divide its rows and too few tokens each get their line."""
    with pytest.raises(
        ConfigError, match=r"tokens_per_step \(4096\) must be divisible by pretrain.phases\[1\].seq_len"
    ):
        Batches(folder, seed=0, tokens_per_step=4096, phases=[(256, 1), (1000, 1)])
    with pytest.raises(ConfigError, match="1 rows of 4096 tokens a step do not go evenly to rank 0 of 2"):
        batches.share(2, 0, 0, 2)
    with pytest.raises(InputError, match="131072 tokens, one step takes 262144"):
        Batches(folder, seed=0, tokens_per_step=1 << 18, phases=[(256, 1)])
    with pytest.raises(IndexError, match="step 8 of phase 1"):
        batches.batch(1, 8)
