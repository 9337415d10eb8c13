"""Batches: every token of an epoch once, exact labels, and one stream for every world size and interruption."""

import random
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_curation.files import Writer, copy_file, join, writing
from data_curation.settings import ConfigError, InputError
from data_curation.shard_index import Index
from data_curation.shard_writer import block_of, histogram, write_index, write_shard
from data_curation.shards import Document, Shards
from training.batches import IGNORED, Batch, Batches
from training.mixing import MixConfig

FIELDS = ("tokens", "labels", "positions", "documents")


def shards(folder: Path, sizes: Sequence[int], sources: Sequence[str] = ("web",), number: int = 1) -> Path:
    """Documents of these many tokens in some shards, their sources in turn; tokens count 0, 1, 2, ... through all."""
    index = Index(1 << 27, 0, "", tuple(sorted(sources)), ("en",))
    ends = np.cumsum(sizes)
    documents = [
        Document(f"{at:032x}", sources[at % len(sources)], "en", 1, np.arange(end - size, end, dtype=np.uint32))
        for at, (size, end) in enumerate(zip(sizes, ends, strict=True))
    ]

    def open_file(path: str) -> AbstractContextManager[Writer]:
        return writing(str(folder / path))

    made = [
        write_shard(open_file, f"{at:05d}", index, [block_of(index, documents[at::number])]) for at in range(number)
    ]
    write_index(open_file, index, [(shard, histogram(index, records)) for shard, records in made])
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
    return shards(tmp_path_factory.mktemp("shards"), sizes_of(1 << 17), ("web", "books", "code"), number=5)


@pytest.fixture
def batches(folder: Path) -> Batches:
    """Three phases of growing lengths that together take exactly one epoch, then one more epoch."""
    return Batches(folder, seed=3, tokens_per_step=4096, phases=[(256, 20), (1024, 8), (4096, 4), (4096, 32)])


PHASES = [(256, 20), (512, 12), (1024, 8)]
MIXES = [MixConfig(), MixConfig(sources={"web": 1, "code": 3}), MixConfig(long_share=0.4)]
MIXED: dict[str, Any] = {"seed": 3, "tokens_per_step": 4096, "phases": PHASES, "mixes": MIXES}
"""All sources, then two of them, then all with more of the long documents."""


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


def test_each_source_has_epochs_of_its_own(folder: Path) -> None:
    """A phase without one source leaves its place alone: read on later, no token of it comes twice in its epoch."""
    sizes = sizes_of(1 << 17)
    owner = np.repeat(np.arange(len(sizes)) % 3, sizes)  # web, books, code
    made = Batches(folder, **MIXED | {"phases": [(256, 8), (512, 3), (1024, 10)], "mixes": [*MIXES[:2], MIXES[0]]})
    tokens = [
        np.concatenate([made.batch(p, s).tokens.ravel() for s in range(n)]) for p, (_, n) in enumerate(made.phases)
    ]
    shares = np.bincount(owner[tokens[1]], minlength=3) / len(tokens[1])
    assert shares.tolist() == pytest.approx([0.25, 0, 0.75], abs=0.1)
    books = np.concatenate(tokens)
    books = books[owner[books] == 1]
    assert 0 < len(books) == len(np.unique(books)) < (owner == 1).sum()
    assert made.source_epochs(1, 3)["books"] == made.source_epochs(0, 8)["books"] == pytest.approx(0.25)
    read = np.bincount(owner[np.concatenate(tokens)]) / np.bincount(owner)
    assert [made.source_epochs(2, 10)[name] for name in ("web", "books", "code")] == pytest.approx(read, abs=0.05)


def test_a_phase_can_prefer_long_documents(folder: Path) -> None:
    """With `long_share` that share of its tokens comes from documents of at least seq_len tokens."""
    sizes = np.array(sizes_of(1 << 17))
    owner = np.repeat(np.arange(len(sizes)), sizes)
    natural = (sizes[owner] >= 1024).mean()
    assert natural < 0.45
    for share in (0.6, 1.0):
        mix = MixConfig(long_share=share)
        made = Batches(folder, seed=0, tokens_per_step=4096, phases=[(1024, 12)], mixes=[mix])
        tokens = np.concatenate([batch.tokens.ravel() for batch in stream(made)])
        assert (sizes[owner[tokens]] >= 1024).mean() == pytest.approx(share, abs=0.08)


def test_shards_on_s3_give_the_same_batches_from_a_bounded_cache(folder: Path, bucket: str, tmp_path: Path) -> None:
    """Token files are fetched when needed; with room for two of five the batches are those of the local folder."""
    for path in folder.iterdir():
        copy_file(str(path), join(bucket, path.name))
    limit = 2 * max(path.stat().st_size for path in folder.glob("*.tokens"))
    remote = Shards(bucket, tmp_path, limit)
    here, there = Batches(folder, **MIXED), Batches(remote, **MIXED)
    assert here.fingerprint() == there.fingerprint()
    for phase, (_, steps) in enumerate(PHASES):
        for step in [*range(0, steps, 5), steps - 1]:  # after the last one no thread fetches ahead
            assert equal(here.batch(phase, step), there.batch(phase, step))
            assert 0 < sum(path.stat().st_size for path in tmp_path.glob("*.tokens")) <= limit
    others = Batches(Shards(bucket, tmp_path, limit), **MIXED)  # as another rank on this machine
    for step in range(8):
        assert equal(there.share(2, step, 0, 2), here.share(2, step, 0, 2))
        assert equal(others.share(2, step, 1, 2), here.share(2, step, 1, 2))
    others.shards.close()
    remote.close()
    path = next(folder.glob("*.tokens"))
    with writing(join(bucket, path.name)) as out:
        out.write(bytes(path.stat().st_size))
    again = Shards(bucket, tmp_path / "again")
    with pytest.raises(InputError, match=rf"{path.name}: damaged, its sha256 is not that of the index"):
        for number in range(len(again)):
            again.tokens(number)
    again.close()


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
