"""Hugging Face datasets, read as streams: one shard of one split of one commit after another."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_curation.artifact import Artifact, Part
from data_curation.files import File, listing, sha256_file
from data_curation.records import Raw
from data_curation.settings import ConfigError, InputError, TransientError, sha256_of
from data_curation.sources.rows import RowFields, of_plain
from data_curation.sources.source import Source
from data_curation.sources.streams import WRONG

_COMMIT = re.compile(r"[0-9a-f]{40}")


def listed(source: Source) -> Artifact:
    """The shards of the split as files. Their stamps follow from repository, commit, configuration, split and number.

    A local folder stands for its repository by its contents, so that its place does not enter the key.
    """
    commit = _commit(source)
    data = _load(source, commit)
    shards = int(data.num_shards)
    split = (data.info.splits or {}).get(source.split)
    size = int(split.num_bytes or 0) // shards if split is not None else 0
    home = f"hub://{source.path}@{commit}"
    repository = "" if Path(source.path).is_dir() else source.path
    files: list[File] = []
    for index in range(shards):
        name = f"{source.config or 'default'}/{source.split}/{index:05d}-of-{shards:05d}"
        files.append(File(name, size, sha256_of([repository, commit, name])))
    return Artifact(source.name, home, {"files": Part(tuple(files))})


def known_commit(source: Source) -> str:
    """The commit where it is known without a request: one that the settings name, a folder's hash; else empty."""
    folder = Path(source.path)
    if folder.is_dir():
        return sha256_of([[path, sha256_file(str(folder / path))] for path in listing(source.path)])
    return source.revision if _COMMIT.fullmatch(source.revision) else ""


def read(source: Source, uri: str, max_bytes: int, names: RowFields) -> Iterator[Raw]:
    """The records of one listed shard; InputError where it cannot be read, TransientError where the network failed."""
    for number, row in enumerate(rows(source, uri, names), 1):
        yield of_plain(row, f"row {number}", names, max_bytes)


def rows(source: Source, uri: str, names: RowFields | None = None) -> Iterator[dict[str, Any]]:
    """The rows of one listed shard as `datasets` gives them, without the fields that `names` does not name."""
    commit, number = uri.rpartition("@")[2].split("/")[0], uri.rpartition("/")[2]
    index, shards = (int(part) for part in number.split("-of-"))
    data = _load(source, commit)
    if int(data.num_shards) != shards:
        raise InputError(f"{uri}: {shards} shards were listed, {data.num_shards} are there; run again")
    if names is not None and data.features:
        data = data.select_columns(_wanted(list(data.features), names, uri))
    found = iter(data.shard(num_shards=shards, index=index))
    while (row := _next(found, source, uri)) is not None:
        yield row


def _wanted(there: list[str], names: RowFields, uri: str) -> list[str]:
    tops = [name if name in there else name.split(".")[0] for name in names]
    if tops[0] not in there:
        raise InputError(f"{uri}: no field {tops[0]!r}, it has {', '.join(there)}; name one in text_field")
    return [name for name in there if name in tops]


def _next(rows: Iterator[dict[str, Any]], source: Source, uri: str) -> dict[str, Any] | None:
    try:
        return next(rows, None)
    except Exception as error:  # every format has a reader and errors of its own
        raise _explained(source, uri, error) from error


def _load(source: Source, commit: str) -> Any:
    from datasets import load_dataset

    # A folder has no revisions; what it holds was hashed when it was listed.
    revision = None if Path(source.path).is_dir() else commit
    try:
        return load_dataset(source.path, source.config or None, split=source.split, revision=revision, streaming=True)
    except Exception as error:
        raise _explained(source, f"hub://{source.path}", error) from error


def _commit(source: Source) -> str:
    if commit := known_commit(source):
        return commit
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(source.path, revision=source.revision or None).sha)
    except Exception as error:
        raise _explained(source, f"hub://{source.path}", error) from error


def _explained(source: Source, uri: str, error: Exception) -> Exception:
    """The error in our words. The network's errors come in the classes of several libraries."""
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    words = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if status in WRONG or isinstance(error, (DatasetNotFoundError, RepositoryNotFoundError, RevisionNotFoundError)):
        return ConfigError(f"path of source {source.name!r} is {source.path!r}: {words}; correct path or revision")
    names = {name.__name__ for cause in (error, error.__cause__, error.__context__) for name in type(cause).__mro__}
    if not Path(source.path).is_dir() and names & {"ConnectionError", "TimeoutError", "HTTPError", "ClientError"}:
        return TransientError(f"{uri}: {words}; run again")
    return InputError(f"{uri}: cannot be read: {words}; correct the source's config, split or files")
