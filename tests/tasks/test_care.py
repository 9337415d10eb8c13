"""Care of a store: what cannot be looked at is said."""

from pathlib import Path

import pytest

from data_curation.settings import ConfigError
from tasks.care import verify_store
from tasks.store import Store


def test_a_store_that_is_not_there_is_not_whole(tmp_path: Path):
    """`verify` of a wrong path is an error, no clean bill."""
    with pytest.raises(ConfigError, match="there is no store at"):
        verify_store(Store(str(tmp_path / "nowhere")), deep=False)
