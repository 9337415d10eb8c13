"""Batches: every token of an epoch once, full rows, exact labels, positions and documents."""

from pathlib import Path

import numpy as np
import pytest

from data_curation.settings import ConfigError, InputError
from tests.training.numbered import FIELDS, shards, sizes_of, stream
from training.batches import IGNORED, Batches


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
        ([5, 6, 14, 15, 16, 17], [6, x, 15, 16, 17, x], [0, 1, 0, 1, 2, 3], [0, 0, 1, 1, 1, 1]),
        ([7, 0, 1, 2, 3, 4], [x, 1, 2, 3, 4, x], [0, 0, 1, 2, 3, 4], [0, 1, 1, 1, 1, 1]),
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


def test_windows_and_epochs_join_without_a_seam(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With windows of one step and epochs that end inside a window, each epoch still has every token once."""
    monkeypatch.setattr("training.batches.WINDOW_TOKENS", 3 * 4096)
    made = Batches(folder, seed=1, tokens_per_step=3 * 1024, phases=[(512, 50), (1024, 78)])
    counts = np.bincount(np.concatenate([batch.tokens.ravel() for batch in stream(made)]), minlength=1 << 17)
    assert counts.tolist() == [3] * (1 << 17)
    assert made.epochs(1, 78) == 3.0 and made.epochs(0, 0) == 0.0


def test_a_document_of_50_million_tokens_is_used_up(tmp_path: Path) -> None:
    """Beside three short ones it goes through whole, in windows that each hold a stretch of it, and nothing twice."""
    size = 50_000_000
    steps = (size + 352) // 131_072
    made = Batches(shards(tmp_path, [100, size, 52, 200]), seed=0, tokens_per_step=131_072, phases=[(8192, steps)])
    seen = np.zeros(size + 352, bool)
    for step in [*range(0, steps, 37), steps - 1]:
        tokens = made.batch(0, step).tokens
        assert not seen[tokens].any()
        seen[tokens] = True
    found = [made.stream.stretch(0, start << 22, min((start + 1) << 22, steps << 17)) for start in range(12)]
    taken = sum(int(sizes.sum()) for _, _, sizes in found)
    spans = sorted((a, a + b) for d, s, n in found for i, a, b in zip(d, s, n, strict=True) if i == 1)
    assert taken == steps << 17 and [a for a, _ in spans] == [0, *(b for _, b in spans[:-1])]


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


def test_rows_of_a_long_document_lie_in_many_steps(tmp_path: Path) -> None:
    """Side by side in one batch they cost the demo's first phase 0.26 bits per byte of held-out text."""
    shards(tmp_path, [32 * 256, *[256] * (128 * 8 - 32)])
    made = Batches(tmp_path, seed=0, tokens_per_step=8 * 256, phases=[(256, 128)])
    mine = [int((batch.tokens[:, 0] < 32 * 256).sum()) for batch in stream(made)]
    assert sum(mine) == 32 and max(mine) <= 3 and sum(map(bool, mine)) >= 24
