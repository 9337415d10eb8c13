"""A tokenizer trained on 300 generated documents, made once for all tests of tokenizers."""

from typing import Any

import pytest
from transformers import AutoTokenizer

from data_curation.artifact import Artifact
from tests.data_curation.corpus import documents, rows
from tests.data_curation.tokenizers import CONFIG, Trained, made


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """300 documents."""
    return documents(tmp_path_factory.mktemp("documents"), rows(300))


@pytest.fixture(scope="session")
def trained(texts: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Folder and counts of a tokenizer that was trained on them."""
    folder, counts, _ = made(tmp_path_factory.mktemp("trained"), CONFIG, texts)
    return folder, counts


@pytest.fixture(scope="session")
def names(trained: Trained) -> Any:
    """The same, loaded."""
    return AutoTokenizer.from_pretrained(trained[0])
