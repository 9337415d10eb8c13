"""The stage `shard`: every document once, exact ids, and bytes that follow from documents and settings alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.place import Place, parts_of
from data_curation.settings import InputError
from data_curation.shard import ShardConfig, shard
from data_curation.shards import Document, Shards, heldout_documents
from data_curation.token_runs import _loaded
from data_curation.tokenizer import TokenizerConfig, tokenizer
from tests.data_curation.corpus import artifact, documents, new_place, row, rows

NUMBER = 400
CONFIG = ShardConfig(tokens_per_shard=6000, heldout_fraction=0.05)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """400 documents in three files."""
    return documents(tmp_path_factory.mktemp("documents"), rows(NUMBER))


@pytest.fixture(scope="module")
def bpe(given: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A tokenizer trained on them."""
    place = new_place(tmp_path_factory.mktemp("tokenizer"))
    tokenizer(TokenizerConfig(vocab_size=400), given, place)
    return Artifact("tokenizer", place.home, parts_of(place.pieces()), key="tokenizer")


def made(home: Path, config: ShardConfig, given: list[Artifact], bpe: Artifact, workers: int = 1) -> Place:
    """The place in which the stage has run."""
    place = new_place(home, workers)
    shard(config, given, bpe, place)
    return place


@pytest.fixture(scope="module")
def place(given: Artifact, bpe: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A run with one worker."""
    return made(tmp_path_factory.mktemp("made"), CONFIG, [given], bpe)


def digests(place: Place) -> dict[str, str]:
    """Digest by published part."""
    return {name: part.digest for name, part in parts_of(place.pieces()).items()}


def read(place: Place, part: str) -> list[Document]:
    """All documents of a part in order."""
    return list(heldout_documents(Path(place.home) / part))


def test_every_document_comes_once_with_exact_ids(place: Place, bpe: Artifact) -> None:
    """Both parts together hold each document once: Hugging Face's ids, then the separator."""
    names: Any = AutoTokenizer.from_pretrained(bpe.uri("tokenizer"))
    found = {document.id: document for part in ("shards", "heldout") for document in read(place, part)}
    assert len(found) == NUMBER == sum(len(read(place, part)) for part in ("shards", "heldout"))
    for some in rows(NUMBER):
        document = found[some["id"]]
        ids = names(some["text"], split_special_tokens=True).input_ids
        assert document.tokens.tolist() == [*ids, names.bos_token_id]
        assert (document.source, document.language) == (some["source"], some["language"])
        assert document.bytes == len(some["text"].encode())


def test_shards_have_about_the_size_that_was_asked_for(place: Place) -> None:
    """All but the last shard hold tokens_per_shard tokens, give or take a document."""
    shards = Shards(Path(place.home) / "shards").index.shards
    assert len(shards) > 2
    assert all(abs(shard.tokens - CONFIG.tokens_per_shard) < 1000 for shard in shards[:-1])
    assert [shard.name for shard in shards] == [f"{number:05d}" for number in range(len(shards))]


def test_one_digest_for_any_workers_and_files(given: Artifact, bpe: Artifact, place: Place, tmp_path: Path) -> None:
    """Three workers, another folder, other files in another order, one or two artifacts: the same bytes."""
    backwards = documents(tmp_path / "backwards", list(reversed(rows(NUMBER))), files=5)
    halves = [documents(tmp_path / str(half), rows(NUMBER)[half::2], files=1) for half in (1, 0)]
    assert set(digests(place)) == {"shards", "heldout"}
    assert digests(made(tmp_path / "a", CONFIG, [given], bpe, workers=3)) == digests(place)
    assert digests(made(tmp_path / "b", CONFIG, [backwards], bpe)) == digests(place)
    assert digests(made(tmp_path / "c", CONFIG, halves, bpe)) == digests(place)


def test_a_seed_moves_no_document_between_the_splits(
    given: Artifact, bpe: Artifact, place: Place, tmp_path: Path
) -> None:
    """Another seed gives another order of the same training documents, and the held-out ones stay held out."""
    other = made(tmp_path / "other", CONFIG.model_copy(update={"seed": 1}), [given], bpe)
    for part in ("shards", "heldout"):
        mine, theirs = ([document.id for document in read(which, part)] for which in (place, other))
        assert mine != theirs and sorted(mine) == sorted(theirs)


def test_sources_are_mixed_all_through(place: Place) -> None:
    """The order is a global shuffle: each half of the tokens holds its share of each source."""
    documents = read(place, "shards")
    sources = np.array([document.source == "source 1" for document in documents])
    half = len(sources) // 2
    assert abs(sources[:half].mean() - sources[half:].mean()) < 0.15


def test_the_held_out_split_is_capped(given: Artifact, bpe: Artifact, place: Place, tmp_path: Path) -> None:
    """Beyond heldout_tokens documents stay in training; the smaller split lies inside the larger one."""
    capped = made(tmp_path / "capped", CONFIG.model_copy(update={"heldout_tokens": 500}), [given], bpe)
    small, large = ({document.id for document in read(which, "heldout")} for which in (capped, place))
    assert 0 < sum(len(document.tokens) for document in read(capped, "heldout")) <= 500
    assert small < large
    assert len(read(capped, "shards")) == NUMBER - len(small)


def test_drops_are_counted(bpe: Artifact, tmp_path: Path) -> None:
    """Documents without text and repeated ids are dropped by name; what came in equals what went out plus drops."""
    some = [*rows(100), row("empty", ""), row("empty too", ""), *rows(7)]
    counts = shard(CONFIG, [documents(tmp_path / "some", some, files=2)], bpe, new_place(tmp_path / "made"))
    assert {row["reason"]: row["documents"] for row in counts.funnel} == {"no text": 2, "repeated id": 7}
    assert counts.taken["documents"] == 109
    assert counts.made["documents"] + counts.made["heldout_documents"] == 100


def test_control_tokens_in_documents_stay_text(bpe: Artifact, tmp_path: Path) -> None:
    """`<|endoftext|>` in a page is ordinary text: the separator comes once, at the end."""
    some = [*rows(100), row("evil", "one <|endoftext|> two <|im_end|>")]
    place = made(tmp_path / "made", CONFIG, [documents(tmp_path / "some", some)], bpe)
    separator = Shards(Path(place.home) / "shards").index.separator
    for document in (document for part in ("shards", "heldout") for document in read(place, part)):
        assert np.flatnonzero(document.tokens == separator).tolist() == [len(document.tokens) - 1]


def test_a_run_that_was_cut_off_goes_on(given: Artifact, bpe: Artifact, place: Place, tmp_path: Path) -> None:
    """A new attempt adopts the intact pieces, makes the damaged one again and ends with the same bytes."""
    first = made(tmp_path / "first", CONFIG, [given], bpe)
    (Path(first.home) / "shards/00001.tokens").write_bytes(b"damaged")
    second = new_place(tmp_path / "second")
    adopted = second.adopt(first.home)
    assert "shard-00000" in adopted and "shard-00001" not in adopted
    counts: Counts = shard(CONFIG, [given], bpe, second)
    assert digests(second) == digests(place)
    assert counts.taken["documents"] == NUMBER


@pytest.mark.parametrize(
    ("some", "change", "words"),
    [
        ([row("a", "")], {}, "no documents with text"),
        (rows(5), {"heldout_fraction": 1e-9}, "leaves no held-out document: raise it"),
        (rows(5), {"heldout_fraction": 0.999999}, "holds all of them out: lower it"),
    ],
)
def test_what_leaves_nothing_is_refused(
    bpe: Artifact, tmp_path: Path, some: list[dict[str, Any]], change: dict[str, float], words: str
) -> None:
    """No documents, no held-out ones or no training ones: an error that says which setting to change."""
    given = documents(tmp_path / "some", some)
    with pytest.raises(InputError, match=words):
        made(tmp_path / "made", CONFIG.model_copy(update=change), [given], bpe)


def test_near_duplicates_of_held_out_documents_are_dropped(bpe: Artifact, tmp_path: Path) -> None:
    """Copies with a few changed words, and pages that quote a held-out one whole, leave training; others stay."""
    plain = rows(NUMBER, words=200)
    first = made(tmp_path / "first", CONFIG, [documents(tmp_path / "plain", plain)], bpe)
    held = {document.id for document in read(first, "heldout") if len(document.tokens) > 200}
    texts = {some["id"]: some["text"] for some in plain}
    assert len(held) > 5
    more: dict[str, list[dict[str, Any]]] = {"copy": [], "quote": [], "other": []}
    for at, name in enumerate(sorted(held)):
        words = texts[name].split(" ")
        changed = ["ZZ" if index % 40 == 20 else word for index, word in enumerate(words)]
        more["copy"].append(row(f"copy {at}", " ".join(changed)))
        more["quote"].append(row(f"quote {at}", f"Before it. {texts[name]} {'And after it. ' * 50}"))
        more["other"].append(row(f"other {at}", " ".join(sorted(words))))
    given = documents(tmp_path / "more", [*plain, *(one for some in more.values() for one in some)])
    place = new_place(tmp_path / "second")
    counts = shard(CONFIG, [given], bpe, place)
    training = {document.id for document in read(place, "shards")}
    mine = {document.id for document in read(place, "heldout")}
    left = {kind: sum(one["id"] in training for one in some) for kind, some in more.items()}
    apart = [one for one in more["other"] if one["id"] not in mine]
    assert left == {"copy": 0, "quote": 0, "other": len(apart)}
    dropped = {some["reason"]: some["documents"] for some in counts.funnel}
    assert dropped["near a held-out document"] == NUMBER + 3 * len(held) - len(training) - len(mine)
    whole = CONFIG.model_copy(update={"heldout_overlap": None})
    assert shard(whole, [given], bpe, new_place(tmp_path / "third")).funnel == []


def test_an_encoder_that_differs_is_not_used(given: Artifact, bpe: Artifact, place: Place, tmp_path: Path) -> None:
    """Where the fast encoder gives a wrong id in the sample, Hugging Face encodes the file, and a warning says so."""
    import fastokens

    folder = tmp_path / "tokenizer"
    folder.mkdir()
    for file in Path(bpe.uri("tokenizer")).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    wrong = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = wrong["model"]["vocab"]
    vocabulary["na"], vocabulary["pe"] = vocabulary["pe"], vocabulary["na"]
    _loaded(folder, True).fast = fastokens.Tokenizer.from_json_str(json.dumps(wrong))
    mine = Artifact("tokenizer", str(tmp_path), {"tokenizer": bpe.part("tokenizer")}, key="mine")
    again = new_place(tmp_path / "again")
    counts = shard(CONFIG, [given], mine, again)
    assert any("gave other token ids than Hugging Face tokenizers in 2 of 3 files" in text for text in counts.warnings)
    assert digests(again) == digests(place)


def test_a_document_of_50_million_tokens_goes_through(bpe: Artifact, tmp_path: Path) -> None:
    """Beside ordinary ones it is never held out, and comes back whole."""
    some = [*rows(100), row("long", "7" * 50_000_000)]
    place = made(tmp_path / "made", CONFIG, [documents(tmp_path / "some", some)], bpe)
    shards = Shards(Path(place.home) / "shards")
    longest = int(shards.lengths.argmax())
    tokens = shards.tokens(longest)
    assert len(tokens) == 50_000_001 and shards.document(longest).bytes == 50_000_000
    assert (tokens[:-1] == tokens[0]).all() and tokens[-1] == shards.index.separator
    assert "long" not in {document.source for document in read(place, "heldout")}


def test_a_vocabulary_beyond_two_bytes_takes_four(given: Artifact, bpe: Artifact, place: Place, tmp_path: Path) -> None:
    """With 70,000 entries, some of them in use above 65,535, the shards hold four bytes a token and lose no id."""
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    for file in Path(bpe.uri("tokenizer")).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    data = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = data["model"]["vocab"]
    moved = {token: number + 69_600 for token, number in vocabulary.items() if number >= 300}
    data["model"]["vocab"] = vocabulary | moved | {f"unused {number}": number for number in range(300, 69_900)}
    (folder / "tokenizer.json").write_text(json.dumps(data))
    large = made(tmp_path / "made", CONFIG, [given], artifact("tokenizer", tmp_path))
    assert Shards(Path(large.home) / "shards").index.dtype.itemsize == 4
    for mine, theirs in zip(read(large, "shards"), read(place, "shards"), strict=True):
        tokens = theirs.tokens.astype(np.int64)
        assert mine.tokens.tolist() == np.where(tokens >= 300, tokens + 69_600, tokens).tolist()
