"""Files named by a list, such as Common Crawl's warc.paths.gz, on a web server or anywhere else."""

from concurrent.futures import ThreadPoolExecutor

from data_curation.files import File, filesystem, join
from data_curation.settings import ConfigError, InputError
from data_curation.sources import rows
from data_curation.sources.source import Source
from data_curation.sources.streams import attempt, is_web, opened
from data_curation.sources.unpacking import blocks

_AT_ONCE = 8  # requests under way while listing


def base_of(source: Source) -> str:
    """What stands before the names in the list."""
    return source.base or source.paths.rsplit("/", 1)[0]


def locate(source: Source, name: str) -> str:
    """URI of one named file."""
    return name if "://" in name else join(base_of(source), name)


def names(source: Source) -> list[str]:
    """The names in the list, each once, sorted; ConfigError where one of them would lead out of the base."""
    found: set[str] = set()
    with opened(source.paths) as stream:
        for line, _ in rows.lines(blocks(stream, source.paths), 1 << 16):
            name = line.decode("utf-8", "replace").strip()
            if ".." in name.split("/") or name.startswith("/"):
                raise ConfigError(
                    f"{source.paths}: {name!r} leads out of the base of source {source.name!r}; remove it"
                )
            if name and not name.startswith("#"):
                found.add(name)
    return sorted(found)


def web_files(source: Source, chosen: list[str]) -> list[File]:
    """Size and stamp of files on a web server, by one HEAD request each."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda name: _ask(locate(source, name), name), chosen))


def web(source: Source) -> bool:
    """Whether the source's files lie on a web server."""
    return is_web(source.path) or is_web(source.paths) or is_web(source.base)


def _ask(uri: str, name: str) -> File:
    fs, path = filesystem(uri)
    info = attempt(uri, lambda: fs.info(path))
    if info.get("size") is None:
        raise InputError(f"{uri}: the server does not tell its size; copy the files to a folder or to s3 first")
    stamp = str(info.get("ETag") or info.get("Last-Modified") or "").strip('"')
    return File(name, int(info["size"]), f"etag:{stamp}")
