"""The settings of a model that scores texts, and the two kinds of such models."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from data_curation.rules.rule import Scores
from data_curation.settings import ConfigError, Settings, sha256_of
from data_curation.sources.source import Source

Scorer = Callable[[Sequence[str]], list[float]]
"""Scores of texts; a text's score does not depend on the texts beside it."""


class QualityConfig(Settings):
    """A linear classifier of hashed runs of words, trained here on good and bad texts (as DCLM's is), or a given
    sequence classifier (as FineWeb-Edu's)."""

    MEASURES: ClassVar[frozenset[str]] = frozenset(
        (
            *("positive", "negative", "positive_documents", "negative_documents", "model", "revision", "label"),
            *("characters", "max_tokens", "ngram", "features", "documents", "heldout", "epochs", "seed"),
            "regularisation",
        )
    )

    min_score: float | None = None
    """Documents with a lower score are dropped; none only scores. A trained model's scores go from 0 to 1."""
    positive: list[Source] = []
    """Good texts, read as `extract` reads its sources."""
    negative: list[Source] = []
    """Bad texts, or any: DCLM takes a sample of the crawl."""
    positive_documents: list[str] = []
    """Names of sources among the stage's own documents that count as good texts."""
    negative_documents: list[str] = []
    """Names of sources among the stage's own documents that count as bad texts."""
    documents: int = Field(default=25_000, ge=20)
    """Texts of each class that are used at most, those with the smallest hashes (12 kB of memory each)."""
    heldout: float = Field(default=0.1, gt=0, lt=1)
    """Share of them, by hash, that measures the classifier and does not train it."""
    ngram: int = Field(default=2, ge=1)
    """Longest runs of words that are features (DCLM: 2)."""
    features: int = Field(default=2**20, ge=2)
    """Numbers that runs of words are hashed to."""
    epochs: int = Field(default=5, ge=1)
    """Passes over the texts in training."""
    regularisation: float = Field(default=1e-6, gt=0)
    """Weight of the squared coefficients in the loss: more keeps them smaller."""
    seed: int = Field(default=0, ge=0)
    """Order of the texts in training."""
    characters: int = Field(default=20_000, ge=1)
    """Characters at a text's start that are looked at, in training and in scoring."""
    model: str = ""
    """In place of training: folder, or name on the Hugging Face hub, of a sequence classifier."""
    revision: str = ""
    """Commit of a model on the hub; needed there, since names move on."""
    label: int = -1
    """The label whose probability is the score, -1 is the last; a classifier with a single output scores by it."""
    max_tokens: int = Field(default=512, ge=8)
    """Tokens at a text's start that a given classifier looks at."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        good, bad = self.positive or self.positive_documents, self.negative or self.negative_documents
        if self.model and (good or bad):
            raise ValueError("clean.quality names a model and texts to train one: leave one of the two out")
        if not self.model and not (good and bad):
            missing = "negative" if good else "positive"
            raise ValueError(
                f"clean.quality.{missing} is empty: name sources of both kinds (or documents by source), or a model"
            )
        both = set(self.positive_documents) & set(self.negative_documents)
        if both:
            raise ValueError(f"clean.quality: source {min(both)!r} is named for both kinds: choose one")
        for name in ("positive", "negative"):
            for index, source in enumerate(getattr(self, name)):
                if source.kind in ("chat-packages", "lines"):
                    raise ValueError(f"clean.quality.{name}[{index}].kind is {source.kind!r}: name a source of texts")
        return self

    def identity(self) -> dict[str, Any]:
        """As for every section, but a given folder counts by its files' bytes."""
        from data_curation.files import sha256_file

        data = super().identity()
        if self.model and Path(self.model).is_dir():
            home = Path(self.model)
            files = sorted(path for path in home.rglob("*") if path.is_file())
            data["model"] = sha256_of({str(path.relative_to(home)): sha256_file(str(path)) for path in files})
        elif self.model and not self.revision:
            raise ConfigError(
                f"clean.quality.revision is empty: {self.model} is no folder here; name the commit of a hub's model"
            )
        return data

    def judge(self, scores: Scores) -> str:
        """Whether the score is too low."""
        low = self.min_score is not None and scores.get("score", self.min_score) < self.min_score
        return "low-quality" if low else ""


def scorer_of(config: QualityConfig, folder: str, device: str) -> Scorer:
    """The given classifier, or the one that was trained into `folder`; loaded once per process."""
    if config.model:
        from data_curation.quality_classifier import classifier

        return classifier(config, device)
    from data_curation.quality_model import LinearModel

    return LinearModel.load(config, Path(folder)).scores
