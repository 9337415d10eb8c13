"""The settings of one source of raw data."""

from typing import Literal, Self

from pydantic import Field, model_validator

from data_curation.settings import Settings, outside_identity
from data_curation.sources.rows import RowFields

Kind = Literal["web-packages", "chat-packages", "warc", "html", "jsonl", "parquet", "hub", "lines"]


class Source(Settings):
    """Where raw records come from; its listing (paths, sizes, hashes) enters the key, its place does not."""

    name: str
    """Name of the source: part of every document's id and a folder's name; letters, digits, `.`, `_`, `-`."""
    kind: Kind
    """What lies there; `hub` is a Hugging Face dataset, the two `-packages` kinds are fetched from the Debian archive
    once, `lines` is a list such as a block list."""
    path: str = outside_identity("")
    """Folder or s3 prefix of the files; for `hub` the repository, or a folder that `datasets` loads."""
    paths: str = outside_identity("")
    """In place of `path`: file or URL of a list of file names, one a line, such as Common Crawl's warc.paths.gz."""
    base: str = outside_identity("")
    """Put before the names in `paths` that are no URL; by default the folder of `paths`."""
    files: int | None = None
    """Files of the source at most, those whose paths have the smallest hashes; none takes all."""
    config: str = ""
    """Configuration of a `hub` dataset; empty is its only or default one."""
    split: str = "train"
    """Split of a `hub` dataset."""
    revision: str = outside_identity("")
    """Branch, tag or commit of a `hub` dataset; empty is `main`. The commit it names when listed is what is read."""
    text_field: str = "text"
    """Field of jsonl, parquet and hub rows that holds the text; `a.b` is field `b` inside field `a`."""
    url_field: str = "url"
    """Field of the address; a row without it has none."""
    date_field: str = "date"
    """Field of the date."""
    title_field: str = "title"
    """Field of the title."""
    language_field: str = "language"
    """Field of the language that the row itself declares; `clean` finds the language on its own."""
    id_field: str = "id"
    """Field of the row's own id: it makes rows of equal text distinct, and is not the document's id."""
    packages: list[str] = []
    """Debian packages of a fetched source; those which a release lacks are skipped and named."""
    fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of the records that is taken, chosen by hash of the record: a smaller share lies within a larger one."""
    weight: float | None = Field(default=None, gt=0)
    """Bytes of this source's files relative to the other sources': the run takes as much as it can in these relations,
    by a share of the records of all but one source. Give it to all sources or to none; none takes everything."""
    limit: int | None = None
    """Records at most. Of a fetched source: spread over its packages. Of others: spread over the files by their bytes,
    the first of each file; what lies behind is not read. `dialogues` takes those with the smallest hashes."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.name or not all(sign.isascii() and (sign.isalnum() or sign in "._-") for sign in self.name):
            raise ValueError(f"name is {self.name!r}: use letters, digits, '.', '_' and '-'")
        if self.name.startswith("."):
            raise ValueError(f"name is {self.name!r}: it must not start with a dot")
        if self.fetched and not self.packages:
            raise ValueError(f"packages of source {self.name!r} is empty: name the Debian packages to fetch")
        if not self.fetched and not (self.path or self.paths):
            raise ValueError(f"path of source {self.name!r} is empty: name the folder or s3 prefix of its files")
        if self.path and self.paths:
            raise ValueError(f"path and paths of source {self.name!r} are both given: a folder or a list, not both")
        if self.kind == "hub" and self.paths:
            raise ValueError(f"paths of source {self.name!r} is given: a hub dataset has only a path, its repository")
        for name in ("limit", "files"):
            value: int | None = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} of source {self.name!r} is {value}: give 1 or more, or leave it out")
        return self

    @property
    def fetched(self) -> bool:
        """Whether the files come from packages rather than from a given path."""
        return self.kind.endswith("-packages")

    @property
    def row_fields(self) -> RowFields:
        """Names of the fields of its rows."""
        return RowFields(
            self.text_field, self.url_field, self.date_field, self.title_field, self.language_field, self.id_field
        )
