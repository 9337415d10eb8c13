"""Guarantees of the quality model: it tells what it was shown, says how well, and gives one digest."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from data_curation.artifact import Artifact
from data_curation.clean import CleanConfig, clean
from data_curation.counts import Counts
from data_curation.quality import QualityConfig, scorer_of
from data_curation.quality_model import metrics
from data_curation.settings import ConfigError, InputError
from data_curation.sources.listing import resolve
from data_curation.sources.source import Source
from tests.data_curation.places import documents, rows, run
from tests.data_curation.prose import text

HYPE = "Amazing offer, friend! Click now and win this incredible deal with one simple trick."
"""What the bad texts of these tests say now and then."""


def bad(number: int) -> str:
    """Prose with shouting in it."""
    return text(number + 5000).replace(". ", f". {HYPE} ", 3)


def jsonl(folder: Path, name: str, texts: list[str]) -> Source:
    """A source of texts."""
    (folder / name).mkdir(parents=True)
    (folder / name / "all.jsonl").write_text("".join(json.dumps({"text": one}) + "\n" for one in texts))
    return Source(name=name, kind="jsonl", path=str(folder / name))


def cleaned(home: Path, given: Artifact, quality: dict[str, Any], workers: int = 1) -> tuple[Artifact, Counts]:
    """Clean with a model and no other rule, its sources listed as a run lists them."""
    off = {"repetition": None, "gopher": None, "c4": None, "fineweb": None, "pii": None}
    config = CleanConfig.model_validate({**off, "languages": [{"code": "en"}], "quality": quality})
    assert config.quality is not None
    listed = [
        [resolve(source, home / "sources")[0] for source in sources]
        for sources in (config.quality.positive, config.quality.negative)
    ]

    def stage(config: CleanConfig, documents: Artifact, place: Any) -> Counts:
        return clean(config, documents, place, *listed)

    return run(stage, config, given, home=home / "home", scratch=home / "scratch", workers=workers)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Twelve documents in three files, every third one bad."""
    made = [{"id": f"{at:02}", "text": bad(at) if at % 3 == 0 else text(at), "source": "made"} for at in range(12)]
    return documents(tmp_path_factory.mktemp("given"), [made[at::3] for at in range(3)])


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Sources of good and bad texts that no document is among."""
    folder = tmp_path_factory.mktemp("sources")
    good = jsonl(folder, "good", [text(number) for number in range(100, 220)])
    return {"positive": [good], "negative": [jsonl(folder, "bad", [bad(number) for number in range(100, 220)])]}


def test_a_model_of_given_sources_tells_good_from_bad(given: Artifact, sources: dict[str, Any], tmp_path: Path):
    """Held-out texts and documents are told apart; the threshold drops with the reason `low-quality`."""
    quality = sources | {"heldout": 0.3}
    made, counts = cleaned(tmp_path / "scored", given, quality)
    scores = {row["id"]: row["quality"] for row in rows(made)}
    assert len(scores) == 12 and all((score < 0.5) == (int(at) % 3 == 0) for at, score in scores.items())
    assert counts.metrics["quality_auc"]["value"] > 0.99 and counts.metrics["quality_auc"]["n"] > 40
    assert 150 < counts.metrics["quality_texts"]["value"] < 200
    cut, counts = cleaned(tmp_path / "cut", given, quality | {"min_score": 0.5})
    assert {row["id"] for row in rows(cut)} == {at for at, score in scores.items() if score >= 0.5}
    assert [(row["step"], row["reason"], row["documents"]) for row in counts.funnel] == [("quality", "low-quality", 4)]
    kept = {row["id"]: json.loads(row["scores"])["quality"]["score"] for row in rows(cut, "decisions")}
    assert kept == pytest.approx(scores, abs=1e-6)


def test_documents_can_be_the_texts_by_their_source(tmp_path: Path):
    """Good and bad texts can come from the stage's own documents, by the names of their sources."""
    made = [{"id": f"g{at}", "text": text(at), "source": "books"} for at in range(60)]
    made += [{"id": f"b{at}", "text": bad(at), "source": "spam"} for at in range(60)]
    made += [{"id": "x", "text": bad(99), "source": "web"}, {"id": "y", "text": text(99), "source": "web"}]
    artifact = documents(tmp_path / "given", [made[at::2] for at in range(2)])
    named = {"positive_documents": ["books"], "negative_documents": ["spam"], "heldout": 0.3}
    cut, _ = cleaned(tmp_path, artifact, named | {"min_score": 0.5})
    assert "x" not in {row["id"] for row in rows(cut)} and "y" in {row["id"] for row in rows(cut)}


def test_one_digest_for_workers_and_order(given: Artifact, sources: dict[str, Any], tmp_path: Path):
    """Neither the number of workers nor the order of the texts changes a byte of documents, decisions or model."""
    one, _ = cleaned(tmp_path / "one", given, sources | {"heldout": 0.3})
    source = sources["positive"][0]
    lines = (Path(source.path) / "all.jsonl").read_text().splitlines(keepends=True)
    turned = jsonl(tmp_path, "good", [json.loads(line)["text"] for line in reversed(lines)])
    three, _ = cleaned(tmp_path / "three", given, sources | {"heldout": 0.3, "positive": [turned]}, workers=3)
    digests = [{name: part.digest for name, part in made.parts.items()} for made in (one, three)]
    assert set(digests[0]) == {"documents", "decisions", "quality"}
    assert digests[0] == digests[1]


def test_a_score_is_of_its_text_alone(given: Artifact, sources: dict[str, Any], tmp_path: Path):
    """A published model gives a text the same score alone, in another batch, and in the stage."""
    made, _ = cleaned(tmp_path, given, sources | {"heldout": 0.3})
    config = QualityConfig.model_validate(sources | {"heldout": 0.3})
    scores = scorer_of(config, str(tmp_path / "home" / "quality"), "cpu")
    texts = {row["text"]: row["quality"] for row in rows(made)}
    together = scores(list(texts))
    assert together == [scores([one])[0] for one in texts] == pytest.approx(list(texts.values()), abs=1e-6)


def test_measures_are_right():
    """Accuracy and AUC are those of the definition: shares of right texts, and of pairs in the right order."""
    draw = np.random.default_rng(0)
    good = (draw.random(80) < 0.4).tolist()
    scores = [round(float(draw.random()) * 0.7 + 0.3 * label, 2) for label in good]
    found = metrics(scores, good)
    pairs = [
        (a > b) + 0.5 * (a == b)
        for a, one in zip(scores, good, strict=True)
        if one
        for b, two in zip(scores, good, strict=True)
        if not two
    ]
    assert found["quality_auc"]["value"] == pytest.approx(sum(pairs) / len(pairs))
    assert found["quality_accuracy"]["value"] == np.mean(
        [(score >= 0.5) == label for score, label in zip(scores, good, strict=True)]
    )
    assert 0.02 < found["quality_auc"]["standard_error"] < 0.1


def test_too_few_texts_are_an_error(given: Artifact, sources: dict[str, Any], tmp_path: Path):
    """A model of a handful of texts, or measured by none, is refused by the class that lacks them."""
    few = jsonl(tmp_path, "few", [text(1), text(1), " ", text(2)])
    with pytest.raises(InputError, match=r"^clean\.quality\.positive: only [12] different texts to train on"):
        cleaned(tmp_path, given, sources | {"positive": [few]})


@pytest.mark.parametrize(
    ("quality", "words"),
    [
        ({}, "quality.positive is empty: name sources of both kinds"),
        ({"positive_documents": ["a"]}, "quality.negative is empty"),
        ({"positive_documents": ["a"], "negative_documents": ["a"]}, "source 'a' is named for both kinds"),
        ({"model": "x", "positive_documents": ["a"]}, "names a model and texts to train one"),
    ],
)
def test_half_settings_are_refused(quality: dict[str, Any], words: str):
    """A model needs both kinds of texts, or is given."""
    with pytest.raises(ValidationError, match=words):
        QualityConfig.model_validate(quality)


@pytest.fixture(scope="module", params=[1, 3])
def classifier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A tiny sequence classifier with one output or three, its weights drawn, and a tokenizer of whole words."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("classifier")
    words = sorted({word for number in range(4) for word in text(number).replace(".", " .").split()})
    bare = Tokenizer(WordLevel({word: at for at, word in enumerate(["[PAD]", "[UNK]", *words])}, unk_token="[UNK]"))
    bare.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=bare, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words) + 2,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=request.param,
        initializer_range=1.0,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder, request.param


def test_a_given_classifier_scores(given: Artifact, classifier: tuple[Path, int], tmp_path: Path):
    """Scores are the model's own output, or the asked label's probability, text by text, whatever the batch."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder, labels = classifier
    label = 0 if labels == 1 else 1
    made, _ = cleaned(tmp_path, given, {"model": str(folder), "label": label, "max_tokens": 64})
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder)
    for row in rows(made):
        with torch.inference_mode():
            logits = model(**tokenizer(row["text"], truncation=True, max_length=64, return_tensors="pt")).logits[0]
        expected = logits[0] if labels == 1 else logits.softmax(-1)[label]
        assert row["quality"] == pytest.approx(float(expected), abs=2e-4)
    assert len({row["quality"] for row in rows(made)}) > 6


def test_a_given_classifier_counts_by_its_bytes(classifier: tuple[Path, int], tmp_path: Path):
    """A folder's place is not part of the key, its bytes are; a name on the hub needs its commit."""
    folder, _ = classifier
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in folder.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    assert QualityConfig(model=str(folder)).identity() == QualityConfig(model=str(moved)).identity()
    (moved / "config.json").write_text("{}")
    assert QualityConfig(model=str(folder)).identity() != QualityConfig(model=str(moved)).identity()
    with pytest.raises(ConfigError, match=r"^clean\.quality\.revision is empty: somebody/model is no folder here"):
        QualityConfig(model="somebody/model").identity()


def test_a_wrong_label_is_refused(given: Artifact, classifier: tuple[Path, int], tmp_path: Path):
    """A label that the classifier does not have is an error of the configuration."""
    with pytest.raises(ConfigError, match=r"clean\.quality\.label is 7: .* has \d labels"):
        cleaned(tmp_path, given, {"model": str(classifier[0]), "label": 7})
