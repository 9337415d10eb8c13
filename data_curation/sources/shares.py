"""How much is taken of each source, and which files make one task: from settings and listings alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from xxhash import xxh3_64_intdigest

from data_curation.artifact import Artifact
from data_curation.files import File
from data_curation.settings import ConfigError
from data_curation.sources.listing import uri_of
from data_curation.sources.source import Source


@dataclass(frozen=True)
class Listed:
    """One file of a source."""

    path: str
    uri: str
    size: int
    """Bytes when it was listed."""
    most: int | None = None
    """Records that are taken of it at most."""


@dataclass(frozen=True)
class Share:
    """The files of one task, all of one source."""

    source: int
    files: tuple[Listed, ...]
    fraction: float
    """Share of the records that is taken."""


def tasks(sources: Sequence[Source], listings: Sequence[Artifact], bytes_per_task: int) -> list[Share]:
    """Consecutive files of one source, up to `bytes_per_task` together; a file of unknown size is a task of its own."""
    shares: list[Share] = []
    parts = fractions(sources, listings)
    for index, (source, listed) in enumerate(zip(sources, listings, strict=True)):
        group: list[Listed] = []
        for file, most in _limited(source, listed.part("files").files):
            size = file.size or (bytes_per_task if source.kind == "hub" else 0)
            if group and sum(one.size for one in group) + size > bytes_per_task:
                shares.append(Share(index, tuple(group), parts[index]))
                group = []
            group.append(Listed(file.path, uri_of(source, listed, file.path), size, most))
        shares += [Share(index, tuple(group), parts[index])] if group else []
    return shares


def fractions(sources: Sequence[Source], listings: Sequence[Artifact]) -> list[float]:
    """Share of each source's records that is taken, by its `fraction` and by the sources' weights.

    With weights, the source that has the fewest bytes for its weight is taken in full, the others in proportion.
    """
    sizes = [sum(file.size for file in listed.part("files").files) for listed in listings]
    weights = [source.weight for source in sources]
    given = [weight for weight in weights if weight is not None]
    if not given:
        return [source.fraction for source in sources]
    if len(given) < len(sources):
        missing = next(source.name for source in sources if source.weight is None)
        raise ConfigError(f"source {missing!r} has no weight and others have: give every source one, or none")
    if not all(sizes):
        unknown = next(source.name for source, size in zip(sources, sizes, strict=True) if not size)
        raise ConfigError(f"source {unknown!r} has a weight and no known size: give every source a fraction instead")
    full = min(size / weight for size, weight in zip(sizes, given, strict=True))
    return [source.fraction * full * weight / size for source, weight, size in zip(sources, given, sizes, strict=True)]


def _limited(source: Source, files: Sequence[File]) -> list[tuple[File, int | None]]:
    """The files with the records to take of each: the limit spread by bytes, evenly where a file is one record.

    Rounding goes along the files in order of their hashes, so that few records of many files are a fair draw of them.
    """
    if source.limit is None or source.fetched:
        return [(file, None) for file in files]
    even = source.kind == "html" or not all(file.size for file in files)
    sizes = {file.path: 1 if even else file.size for file in files}
    total, seen = sum(sizes.values()), 0
    shares: dict[str, int] = {}
    for path in sorted(sizes, key=lambda path: (xxh3_64_intdigest(path), path)):
        before = source.limit * seen // total
        seen += sizes[path]
        shares[path] = source.limit * seen // total - before
    return [(file, shares[file.path]) for file in files if shares[file.path]]
