"""Web pages of Debian documentation packages: a fair, repeatable choice of them."""

import os
from pathlib import Path

import xxhash

from data_curation.settings import InputError
from data_curation.sources.warc import Page, write

SUFFIXES = (".html", ".htm", ".xhtml")


def write_packages(unpacked: dict[str, Path], limit: int | None, folder: Path) -> int:
    """Write the HTML pages of unpacked packages as WARC files, `limit` at most; returns their number."""
    found = {name: _pages(name, tree) for name, tree in sorted(unpacked.items())}
    shares = spread({name: len(pages) for name, pages in found.items()}, limit)
    chosen = [page for name, pages in found.items() for page in pages[: shares[name]]]
    if not chosen:
        raise InputError(f"no HTML page in the packages {', '.join(sorted(unpacked))}: name documentation packages")
    # By hash of the URL: every file gets a mix of all packages, so tasks take about equally long.
    return write(sorted(chosen, key=lambda page: (xxhash.xxh3_64_intdigest(page.url), page.url)), folder)


def spread(sizes: dict[str, int], limit: int | None) -> dict[str, int]:
    """How many of each package's pages to take: all of the small ones, an equal share of the others, `limit` in all."""
    shares, left = dict(sizes), sum(sizes.values()) if limit is None else limit
    for done, (name, size) in enumerate(sorted(sizes.items(), key=lambda item: (item[1], item[0]))):
        shares[name] = min(size, left // (len(sizes) - done))
        left -= shares[name]
    return shares


def _pages(package: str, tree: Path) -> list[Page]:
    """The package's pages in a random but fixed order of their paths below their common folder.

    Two translations of one manual hold the same paths there, so equal shares of them hold the same pages.
    """
    files = [path for path in tree.rglob("*") if path.suffix in SUFFIXES and path.is_file() and not path.is_symlink()]
    if not files:
        return []
    root = os.path.commonpath([path.parent for path in files])
    order = {path: path.relative_to(root).as_posix() for path in files}
    files.sort(key=lambda path: (xxhash.xxh3_64_intdigest(order[path]), order[path]))
    return [Page(f"https://{package}.example/{order[path]}", path) for path in files]
