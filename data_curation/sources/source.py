"""The settings of one source of raw data."""

from typing import Literal, Self

from pydantic import model_validator

from data_curation.settings import Settings, outside_identity


class Source(Settings):
    """Where raw records come from; its listing (paths, sizes, hashes) enters the key, its place does not."""

    name: str
    """Name of the source: part of every document's id and a folder's name; letters, digits, `.`, `_`, `-`."""
    kind: Literal["web-packages", "chat-packages", "warc", "html", "jsonl", "parquet"]
    """What lies there; the two `-packages` kinds are fetched from the Debian archive once."""
    path: str = outside_identity("")
    """Folder or s3 prefix of a source that is not fetched."""
    packages: list[str] = []
    """Debian packages of a fetched source; those which a release lacks are skipped and named."""
    limit: int | None = None
    """Pages of a fetched source at most, spread over its packages; none takes all."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.name or not all(sign.isascii() and (sign.isalnum() or sign in "._-") for sign in self.name):
            raise ValueError(f"name is {self.name!r}: use letters, digits, '.', '_' and '-'")
        if self.name.startswith("."):
            raise ValueError(f"name is {self.name!r}: it must not start with a dot")
        if self.fetched and not self.packages:
            raise ValueError(f"packages of source {self.name!r} is empty: name the Debian packages to fetch")
        if not self.fetched and not self.path:
            raise ValueError(f"path of source {self.name!r} is empty: name the folder or s3 prefix of its files")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit of source {self.name!r} is {self.limit}: give 1 or more, or leave it out")
        return self

    @property
    def fetched(self) -> bool:
        """Whether the files come from packages rather than from a given path."""
        return self.kind.endswith("-packages")
