"""Lists of one entry a line, such as block lists."""

from collections.abc import Iterator

from data_curation.artifact import Artifact
from data_curation.settings import InputError
from data_curation.sources import rows
from data_curation.sources.listing import uri_of
from data_curation.sources.source import Source
from data_curation.sources.streams import check_size, opened
from data_curation.sources.unpacking import blocks

LONGEST = 1 << 20
"""Bytes of an entry at most."""


def read_lines(source: Source, listed: Artifact) -> Iterator[str]:
    """The entries of all files of a source, without empty lines and those that start with `#`.

    InputError names the file where it is cut or damaged, and the line where it is too long or not UTF-8.
    """
    for file in listed.part("files").files:
        uri = uri_of(source, listed, file.path)
        check_size(uri, file.size)
        with opened(uri) as stream:
            for number, (line, size) in enumerate(rows.lines(blocks(stream, uri), LONGEST), 1):
                if size > LONGEST:
                    raise InputError(f"{uri}: line {number} has {size} bytes, {LONGEST} are allowed; is it a list?")
                try:
                    entry = line.decode().strip()
                except UnicodeDecodeError as error:
                    raise InputError(f"{uri}: line {number} is not UTF-8: {error}; correct it") from None
                if entry and not entry.startswith("#"):
                    yield entry
