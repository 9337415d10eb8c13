"""Documents whose URL is blocked."""

from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from data_curation.rules.rule import given_file
from data_curation.settings import InputError, Settings

if TYPE_CHECKING:
    from data_curation.url_list import UrlList


class UrlsConfig(Settings):
    """Blocked URLs, by a list of your own; no list comes along."""

    MEASURES: ClassVar[frozenset[str]] = frozenset(("block_list", "words"))

    block_list: str = ""
    """Text file (path or URI) of domains (`example.com`, with all below) and beginnings of URLs, one a line."""
    words: list[str] = []
    """Words that block a URL which holds them between other signs than letters and digits."""

    def identity(self) -> dict[str, Any]:
        """As for every section, but the list counts by its bytes."""
        listed = given_file("clean.urls.block_list", self.block_list) if self.block_list else ""
        return super().identity() | {"block_list": listed}

    def listed(self) -> "UrlList":
        """The list, read once per process."""
        return _read(self.block_list, tuple(self.words))


@cache
def _read(source: str, words: tuple[str, ...]) -> "UrlList":
    from data_curation.files import read_bytes
    from data_curation.url_list import UrlList

    try:
        lines = read_bytes(source).decode().splitlines() if source else []
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"clean.urls.block_list: {source} cannot be read ({error}): name a text file") from None
    return UrlList(lines, words)
