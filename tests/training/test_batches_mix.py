"""Mixed sources: epochs of each, more of the long documents, shards read from s3."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from data_curation.files import copy_file, join, writing
from data_curation.settings import InputError
from data_curation.shards import Shards
from tests.training.numbered import MIXED, MIXES, PHASES, equal, sizes_of, stream
from training.batches import Batches
from training.mixing import MixConfig


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


def _size(folder: Path) -> int:
    """Bytes of the token files that are there; a thread takes them away and fetches others meanwhile."""
    size = 0
    for path in folder.glob("*.tokens"):
        with suppress(FileNotFoundError):
            size += path.stat().st_size
    return size


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
            assert 0 < _size(tmp_path) <= limit
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


def test_with_long_share_nothing_comes_twice_within_its_kind(folder: Path) -> None:
    """Long documents run ahead of the short ones; a token comes again only when all of its source and length have."""
    sizes = sizes_of(1 << 17)
    kind = np.array([(at % 3) * 64 + size.bit_length() for at, size in enumerate(sizes)])  # source and power of two
    kinds = kind[np.repeat(np.arange(len(sizes)), sizes)]
    made = Batches(
        folder, seed=0, tokens_per_step=4096, phases=[(1024, 40)], mixes=[MixConfig(long_share=0.7, long_tokens=1024)]
    )
    seen = np.bincount(np.concatenate([batch.tokens.ravel() for batch in stream(made)]), minlength=1 << 17)
    spread = {name: (seen[kinds == name].min(), seen[kinds == name].max()) for name in np.unique(kinds)}
    assert all(most - least <= 1 for least, most in spread.values())
    assert max(most for _, most in spread.values()) >= 2 and min(least for least, _ in spread.values()) == 0
