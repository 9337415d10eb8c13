"""A linear classifier of hashed runs of words: its training, its scores, and how good it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import sqrt
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import roc_auc_score

from data_curation.quality import QualityConfig

WEIGHTS = "weights.npy"
DIGITS = 4
"""Decimals of a score: what is beyond differs from one processor to the next."""


@dataclass(frozen=True)
class LinearModel:
    """Coefficients of all features, and last the constant."""

    config: QualityConfig
    weights: NDArray[np.float32]

    @staticmethod
    def train(config: QualityConfig, texts: Sequence[str], good: Sequence[bool]) -> "LinearModel":
        """Logistic loss by averaged stochastic gradient descent; both classes weigh the same."""
        model: Any = SGDClassifier(
            loss="log_loss",
            alpha=config.regularisation,
            max_iter=config.epochs,
            tol=cast(Any, None),
            average=True,
            class_weight="balanced",
            random_state=config.seed,
        )
        model.fit(_features(config, texts), np.array(good))
        return LinearModel(config, np.append(model.coef_[0], model.intercept_).astype(np.float32))

    @staticmethod
    def load(config: QualityConfig, folder: Path) -> "LinearModel":
        """The model of a folder, read once per process."""
        return LinearModel(config, _read(str(folder / WEIGHTS)))

    def scores(self, texts: Sequence[str]) -> list[float]:
        """Probability of the good class, for each text."""
        logits = _features(self.config, texts) @ self.weights[:-1].astype(np.float64) + float(self.weights[-1])
        return np.round(0.5 * (1 + np.tanh(logits / 2)), DIGITS).tolist()


def metrics(scores: Sequence[float], good: Sequence[bool]) -> dict[str, dict[str, Any]]:
    """Accuracy at one half, and the area under the ROC curve with Hanley and McNeil's (1982) standard error."""
    right = float(np.mean((np.array(scores) >= 0.5) == np.array(good)))
    area = float(roc_auc_score(good, scores))
    ones, zeros = sum(good), len(good) - sum(good)
    one, two = area / (2 - area), 2 * area * area / (1 + area)
    variance = area * (1 - area) + (ones - 1) * (one - area * area) + (zeros - 1) * (two - area * area)
    errors = (sqrt(right * (1 - right) / len(good)), sqrt(max(0.0, variance) / (ones * zeros)))
    return {
        name: {"value": value, "n": len(good), "standard_error": error}
        for name, value, error in zip(("quality_accuracy", "quality_auc"), (right, area), errors, strict=True)
    }


def _features(config: QualityConfig, texts: Sequence[str]) -> Any:
    """One row of a sparse matrix for each text: how often its runs of words are, at length 1."""
    vectorizer: Any = HashingVectorizer(
        token_pattern=r"\w+", ngram_range=(1, config.ngram), n_features=config.features, alternate_sign=False
    )
    return vectorizer.transform([text[: config.characters] for text in texts])


@cache
def _read(path: str) -> NDArray[np.float32]:
    return np.load(path, allow_pickle=False)
