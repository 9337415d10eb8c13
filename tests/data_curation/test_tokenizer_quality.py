"""A tokenizer's report: bytes per token on unseen documents, beside a reference, and unused entries."""

from pathlib import Path
from typing import Any

import pytest

from data_curation.artifact import Artifact
from data_curation.encoding import Encoder
from data_curation.tokenizer import Sample, TokenizerConfig
from tests.data_curation.corpus import documents, rows
from tests.data_curation.tokenizers import CONFIG, Trained, made


def test_quality_is_measured_on_unseen_documents(texts: Artifact, trained: Trained, names: Any) -> None:
    """Bytes per token are those of documents outside the sample, over all and by language."""
    sample = Sample.of(CONFIG, texts)
    assert sample.train <= sample.measure < 1
    unseen = list(sample.measured())
    assert 0 < len(unseen) < 100
    metrics = trained[1].metrics
    for language, name in ((None, "bytes_per_token"), ("xa", "bytes_per_token_xa")):
        found = [text for text, its, _ in unseen if language in (None, its)]
        ratio = sum(len(text.encode()) for text in found) / sum(len(names(text).input_ids) for text in found)
        assert metrics[name]["value"] == pytest.approx(ratio)
        assert metrics[name]["n"] == len(found)


def test_quality_is_told_by_source_and_beside_a_reference(texts: Artifact, trained: Trained, tmp_path: Path):
    """A reference with fewer merges needs more tokens on the same documents, over all, by language and by source."""
    small, _, _ = made(tmp_path / "small", TokenizerConfig(vocab_size=280), texts)
    folder, counts, _ = made(tmp_path / "made", TokenizerConfig(vocab_size=400, reference=str(small)), texts)
    assert (folder / "tokenizer.json").read_bytes() == (trained[0] / "tokenizer.json").read_bytes()
    mine, other = Encoder(folder), Encoder(small)
    unseen = [text for text, _, source in Sample.of(CONFIG, texts).measured() if source == "source 1"]
    tokens = [sum(len(ids) for ids in encoder.reference(unseen)) for encoder in (mine, other)]
    found = counts.metrics["tokens_against_reference_source_source 1"]
    assert found["value"] == pytest.approx(tokens[0] / tokens[1]) and found["n"] == len(unseen)
    for name in ("", "_xa", "_xb", "_source_source 0"):
        assert 0 < counts.metrics[f"tokens_against_reference{name}"]["value"] < 1
        assert counts.metrics[f"bytes_per_token{name}"]["value"] > 1


def test_unused_entries_are_counted(texts: Artifact, names: Any, trained: Trained) -> None:
    """What no document of the sample contains: most of the 256 bytes here."""
    sample = Sample.of(CONFIG, texts)
    seen = {
        token for text, _, _ in [*sample.rows(0, sample.train), *sample.measured()] for token in names(text).input_ids
    }
    assert trained[1].metrics["unused_entries"]["value"] == 400 - 7 - len(seen)


def test_a_small_sample_is_said(tmp_path: Path) -> None:
    """A vocabulary that the text cannot fill leads to a warning with both numbers."""
    _, counts, _ = made(tmp_path / "made", TokenizerConfig(vocab_size=5000), documents(tmp_path / "few", rows(10)))
    assert any("vocab_size is 5000" in warning for warning in counts.warnings)


def test_without_a_reference_the_recipe_of_gpt2_is_one(texts: Artifact, trained: Trained) -> None:
    """A BPE of as many entries, trained on the same sample with GPT-2's words: both encode the unseen documents."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    sample = Sample.of(CONFIG, texts)
    other: Any = Tokenizer(models.BPE())
    other.pre_tokenizer, other.decoder = pre_tokenizers.ByteLevel(False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    # As many entries without the seven control tokens, which no text uses.
    trainer = trainers.BpeTrainer(vocab_size=393, initial_alphabet=alphabet, show_progress=False)
    other.train_from_iterator([text for text, _, _ in sample.rows(0, sample.train)], trainer)
    unseen = [text for text, _, _ in sample.measured()]
    mine = sum(len(ids) for ids in Encoder(trained[0]).encode(unseen))
    theirs = sum(len(encoding.ids) for encoding in other.encode_batch(unseen))
    found = trained[1].metrics["tokens_against_reference"]
    assert found["value"] == pytest.approx(mine / theirs) and found["n"] == len(unseen)
