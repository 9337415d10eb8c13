"""Guarantees of unpacking: all bytes of a whole file, an error for every file that lacks some."""

import io
import random
import zlib

import pyarrow as pa
import pytest

from data_curation.settings import InputError
from data_curation.sources.unpacking import BLOCK, blocks
from tests.data_curation.archives import zstd

NOISE = random.Random(1).randbytes(300)
CONTENTS = {
    "stored": NOISE,
    "packed": b"the same words again and again, " * 40,
    "both": NOISE + b"\n" * 500 + NOISE,
    "little": b"x",
    "nothing": b"",
}


def member(data: bytes, level: int = 9, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    """One gzip member."""
    packer = zlib.compressobj(level, zlib.DEFLATED, 31, strategy=strategy)
    return packer.compress(data) + packer.flush()


def read(data: bytes, name: str) -> bytes:
    """What comes out of a file."""
    return b"".join(blocks(io.BytesIO(data), name))


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("level", [0, 1, 9])
def test_gzip_cut_at_any_byte_is_an_error(content: str, level: int) -> None:
    """Every cut within two members is noticed, but for the one between them, which leaves a whole file."""
    one, two = member(CONTENTS[content], level), member(b"the second one", level)
    assert read(one + two, "a.gz") == CONTENTS[content] + b"the second one"
    for end in range(len(one + two)):
        if end == len(one):
            assert read((one + two)[:end], "a.gz") == CONTENTS[content]
            continue
        with pytest.raises(InputError, match=r"a\.gz: (not gzip, or )?cut"):
            read((one + two)[:end], "a.gz")


@pytest.mark.parametrize("content", ["packed", "both"])
def test_zstandard_cut_at_any_byte_is_an_error(content: str) -> None:
    """Every cut within two frames is noticed, but for the one between them."""
    one, two = zstd(CONTENTS[content]), zstd(b"the second one")
    assert read(one + two, "a.zst") == CONTENTS[content] + b"the second one"
    for end in range(len(one + two)):
        if end != len(one):
            with pytest.raises(InputError, match=r"a\.zst: "):
                read((one + two)[:end], "a.zst")


@pytest.mark.parametrize("size", [BLOCK - 70, BLOCK - 68, BLOCK - 30, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_no_byte_is_lost_between_blocks(size: int) -> None:
    """Contents of any size come out whole, in blocks that are not much larger than the usual one."""
    data = random.Random(size).randbytes(size)
    found = list(blocks(io.BytesIO(member(data[: size // 2]) + member(data[size // 2 :])), "a.gz"))
    assert b"".join(found) == data
    assert max(map(len, found)) <= BLOCK + 100
    assert read(pa.Codec("zstd").compress(data, asbytes=True), "a.zst") == data
    assert read(data, "a.bin") == data


def test_empty_members_are_no_end() -> None:
    """Members that hold nothing, as BGZF writes them at its end, lie anywhere in a file without a byte being lost."""
    empty = member(b"")
    assert read(empty * 3 + member(b"one ") + empty * 40 + member(b"two") + empty, "a.gz") == b"one two"
    assert read(empty, "a.gz") == b""


def test_what_follows_the_last_member_is_an_error() -> None:
    """Bytes behind the end are neither taken nor passed over."""
    for name, whole in (("a.gz", member(b"x")), ("a.zst", zstd(b"x"))):
        with pytest.raises(InputError, match=name):
            read(whole + b"rest of something", name)
