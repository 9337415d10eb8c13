"""The shard format: what is written is read, and damage or another format is refused with words."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_curation.settings import InputError
from data_curation.shard_index import BLOCK_BYTES, Index
from data_curation.shard_writer import write_folder
from data_curation.shards import Document, Shards, heldout_documents

INDEX = Index(vocabulary=60_000, separator=0, tokenizer="0" * 64, sources=("web", "books"), languages=("en", "de"))


def some(sizes: list[int]) -> list[Document]:
    """Documents of these many tokens, the last of them the separator; all their tokens differ."""
    found, start = [], 1
    for number, size in enumerate(sizes):
        tokens = np.append(np.arange(start, start + size - 1), 0).astype(np.uint32)
        found.append(Document(f"{number:032x}", INDEX.sources[number % 2], INDEX.languages[0], 10 * size, tokens))
        start += size
    return found


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Every document comes back with its id, source, language, bytes and tokens, whole or in part."""
    written = some([5, 1, 40_000, 7])
    write_folder(tmp_path, INDEX, written)
    shards = Shards(tmp_path)
    assert shards.lengths.tolist() == [5, 1, 40_000, 7]
    for number, (mine, theirs) in enumerate(zip(heldout_documents(tmp_path), written, strict=True)):
        assert replace(mine, tokens=None) == replace(theirs, tokens=None)  # type: ignore[arg-type]
        assert mine.tokens.tolist() == theirs.tokens.tolist()
        assert shards.tokens(number, 0, 1).tolist() == theirs.tokens[:1].tolist()
    assert shards.tokens(2, 39_990, 39_995).tolist() == written[2].tokens[39_990:39_995].tolist()
    with pytest.raises(IndexError):
        shards.tokens(0, 0, 6)


@pytest.mark.parametrize(("vocabulary", "dtype"), [(65_536, "<u2"), (65_537, "<u4")])
def test_tokens_take_two_bytes_where_they_can(tmp_path: Path, vocabulary: int, dtype: str) -> None:
    """A vocabulary of up to 65,536 is stored in two bytes, a larger one in four; the file is nothing but tokens."""
    tokens = np.array([1, vocabulary - 1, 0], np.uint32)
    write_folder(tmp_path, replace(INDEX, vocabulary=vocabulary), [Document("a", "web", "en", 3, tokens)])
    assert np.fromfile(tmp_path / "00000.tokens", dtype).tolist() == tokens.tolist()
    assert Shards(tmp_path).tokens(0).tolist() == tokens.tolist()


def test_wrong_documents_are_refused(tmp_path: Path) -> None:
    """A token that the vocabulary lacks would be stored as another one, and a long id would be cut: both raise."""
    with pytest.raises(InputError, match=r"outside the vocabulary \(60000\)"):
        write_folder(tmp_path, INDEX, [Document("a", "web", "en", 1, np.array([60_000], np.uint32))])
    with pytest.raises(InputError, match="1 to 32 ASCII"):
        write_folder(tmp_path, INDEX, [Document("a" * 33, "web", "en", 1, np.array([1], np.uint32))])


def test_the_index_holds_a_histogram_of_lengths(tmp_path: Path) -> None:
    """By source and power of two, in documents and tokens."""
    lengths = write_folder(tmp_path, INDEX, some([1, 2, 3, 4, 1000])).lengths
    assert lengths == Shards(tmp_path).index.lengths
    assert lengths["web"]["documents"][:3] == [1, 1, 0] and lengths["web"]["documents"][9] == 1
    assert lengths["web"]["tokens"][:3] == [1, 3, 0] and lengths["web"]["tokens"][9] == 1000
    assert lengths["books"]["tokens"][1:3] == [2, 4]


def test_another_format_is_refused(tmp_path: Path) -> None:
    """Shards of a later release are not read as if they were ours."""
    write_folder(tmp_path, INDEX, some([5]))
    index = json.loads((tmp_path / "index.json").read_text())
    assert index["format"] == 1
    (tmp_path / "index.json").write_text(json.dumps({**index, "format": 2}))
    with pytest.raises(InputError, match="format 2, this release reads 1"):
        Shards(tmp_path)


def test_a_flipped_byte_is_noticed_at_first_use(tmp_path: Path) -> None:
    """Documents in whole blocks are read; one that touches the damaged block raises, naming file and block."""
    block = BLOCK_BYTES // 2
    write_folder(tmp_path, INDEX, some([block, 100, 100]))
    raw = bytearray((tmp_path / "00000.tokens").read_bytes())
    raw[2 * block + 150] ^= 1
    (tmp_path / "00000.tokens").write_bytes(raw)
    shards = Shards(tmp_path)
    assert len(shards.tokens(0)) == block
    for number in (1, 2):
        with pytest.raises(InputError, match=r"00000\.tokens: block 1 .* damaged"):
            shards.tokens(number)


def _flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


@pytest.mark.parametrize("harm", [_flip, _cut, Path.unlink])
@pytest.mark.parametrize("name", ["index.json", "00000.tokens", "00000.documents.npy", "00000.checksums.npy"])
def test_damage_to_any_file_is_named(tmp_path: Path, name: str, harm: Callable[[Path], None]) -> None:
    """A file that is changed, cut or gone raises an error with its name before a wrong token is handed out."""
    write_folder(tmp_path, INDEX, some([50, 50]))
    if name == "index.json" and harm is _flip:
        (tmp_path / name).write_text("{,}")
    else:
        harm(tmp_path / name)
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        list(heldout_documents(tmp_path))


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    """Shards know the tokenizer that made them by the hash of its tokenizer.json."""
    (tmp_path / "tokenizer.json").write_text("{}")
    known = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"  # sha256 of {}
    write_folder(tmp_path / "shards", replace(INDEX, tokenizer=known), some([5]))
    Shards(tmp_path / "shards").check_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{} ")
    with pytest.raises(InputError, match="not the tokenizer that made"):
        Shards(tmp_path / "shards").check_tokenizer(tmp_path)
