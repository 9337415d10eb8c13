"""Runs `clean` on texts, for tests."""

from pathlib import Path
from typing import Any

from data_curation.artifact import Artifact
from data_curation.clean import CleanConfig, clean
from data_curation.counts import Counts
from tests.data_curation.places import documents, rows, run


def cleaned(home: Path, texts: list[str], workers: int = 1, files: int = 1, **settings: Any) -> tuple[Artifact, Counts]:
    """Clean texts, numbered by their ids and dealt out to files."""
    named = [{"id": f"{number:04d}", "text": text, "source": "made"} for number, text in enumerate(texts)]
    return cleaned_rows(home, [named[start::files] for start in range(files)], workers, **settings)


def cleaned_rows(
    home: Path, files: list[list[dict[str, Any]]], workers: int = 1, **settings: Any
) -> tuple[Artifact, Counts]:
    """Clean files of rows."""
    given = documents(home / "given", files)
    return run(clean, CleanConfig(**settings), given, home=home / "home", scratch=home / "scratch", workers=workers)


def reasons(made: Artifact) -> dict[str, str]:
    """Step and reason of every document; `clean` is what stays."""
    return {row["id"]: f"{row['step']} {row['reason']}".strip() for row in rows(made, "decisions")}
