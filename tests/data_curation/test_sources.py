"""Guarantees of sources: fetched once, listed relative to their root, WARC bytes that follow from the pages."""

import os
from io import BytesIO
from pathlib import Path

import pytest
from pydantic import ValidationError
from warcio.archiveiterator import ArchiveIterator

from data_curation.artifact import Artifact
from data_curation.files import write_bytes
from data_curation.settings import ConfigError, InputError
from data_curation.sources import warc, web
from data_curation.sources.debian import NothingFetchedError, download
from data_curation.sources.listing import is_fetched, resolve, uri_of
from data_curation.sources.source import Source
from tests.data_curation.prose import page

PYDOC = Source(name="docs", kind="web-packages", packages=["apache2-doc"], limit=3)


def given(folder: Path, kind: str = "html") -> Source:
    """A source of files in a folder."""
    return Source.model_validate({"name": "given", "kind": kind, "path": str(folder)})


def digests(listed: Artifact) -> dict[str, str]:
    """Paths and hashes of a listing."""
    return {file.path: file.sha256 for file in listed.part("files").files}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"kind": "warc"}, "path of source 'a' is empty"),
        ({"kind": "web-packages"}, "packages of source 'a' is empty"),
        ({"kind": "warc", "path": "x", "limit": 0}, "limit of source 'a' is 0"),
        ({"kind": "warc", "path": "x", "name": "../a"}, "name is '../a'"),
        ({"kind": "zip", "path": "x"}, "Input should be"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object], words: str) -> None:
    """A source that lacks what its kind needs is refused with words."""
    with pytest.raises(ValidationError, match=words):
        Source.model_validate({"name": "a", **wrong})


def test_place_of_a_source_is_not_its_identity() -> None:
    """The same files in another folder give the same key."""
    assert given(Path("/one")).identity() == given(Path("/two")).identity()


def test_warc_is_read_back_by_warcio(tmp_path: Path) -> None:
    """warcio reads every page with its URL, type, valid digests and unchanged bytes, whatever bytes a page holds."""
    pages = [warc.Page(f"https://a.example/{number}.html", page(number)) for number in range(3)]
    pages.append(warc.Page("https://a.example/odd.html", b"\r\n\r\nWARC/1.0\r\n\r\n\x00\xff"))
    assert warc.write(pages, tmp_path) == 4
    found = []
    for record in ArchiveIterator(BytesIO((tmp_path / "web-00000.warc.gz").read_bytes()), check_digests="raise"):
        if record.rec_type == "response":
            assert record.rec_headers["WARC-Identified-Payload-Type"] == "text/html"
            found.append((record.rec_headers["WARC-Target-URI"], record.content_stream().read()))
    assert found == [(one.url, one.read()) for one in pages]


def test_warc_bytes_follow_from_pages(tmp_path: Path) -> None:
    """Equal pages give equal files of 250 pages each; a changed page changes only its record's file."""
    pages = [warc.Page(f"https://a.example/{number}", b"<p>%d</p>" % number) for number in range(600)]
    for name in ("one", "two"):
        warc.write(pages, tmp_path / name)
    warc.write([*pages[:-1], warc.Page(pages[-1].url, b"<p>other</p>")], tmp_path / "changed")
    names = ["web-00000.warc.gz", "web-00001.warc.gz", "web-00002.warc.gz"]
    one, two, changed = (
        [(tmp_path / folder / name).read_bytes() for name in names] for folder in ("one", "two", "changed")
    )
    assert one == two
    assert one[:2] == changed[:2]
    assert one[2] != changed[2]


@pytest.mark.parametrize("limit", [1, 7, 40, 100, 1000, None])
def test_limit_is_spread_over_packages(limit: int | None) -> None:
    """Small packages come whole, the others get equal shares (a page more or less), and the limit is used up."""
    sizes = {"a": 3, "b": 500, "c": 20, "d": 90}
    shares = web.spread(sizes, limit)
    assert sum(shares.values()) == min(limit or 10**9, sum(sizes.values()))
    cut = [share for name, share in shares.items() if share < sizes[name]]
    assert not cut or max(cut) - min(cut) <= 1
    assert all(share <= min(cut, default=share) for name, share in shares.items() if share == sizes[name])


def test_translations_get_the_same_pages(tmp_path: Path) -> None:
    """Two packages with equal paths below their own folders contribute the same pages."""
    for language in ("en-US", "en-GB"):
        for number in range(40):
            path = tmp_path / language / "usr/share/help" / language / f"text/{number % 3}/{number}.html"
            write_bytes(str(path), page(number))
    web.write_packages({name: tmp_path / name for name in ("en-US", "en-GB")}, 20, tmp_path / "out")
    chosen: dict[str, set[str]] = {}
    for record in ArchiveIterator(BytesIO((tmp_path / "out" / "web-00000.warc.gz").read_bytes())):
        if record.rec_type == "response":
            _, _, package, path = record.rec_headers["WARC-Target-URI"].split("/", 3)
            chosen.setdefault(package, set()).add(path)
    assert chosen["en-US.example"] == chosen["en-GB.example"]
    assert len(chosen["en-US.example"]) == 10


def test_folder_is_listed_relative_to_its_root(tmp_path: Path) -> None:
    """Equal files in two folders give equal listings; what is of another kind is named; a change is noticed."""
    for name in ("one", "two"):
        write_bytes(str(tmp_path / name / "sub/a.html"), b"<p>a")
        write_bytes(str(tmp_path / name / "b.html"), b"<p>b")
    write_bytes(str(tmp_path / "two" / "notes.txt"), b"-")
    one, silent = resolve(given(tmp_path / "one"), tmp_path / "home")
    two, warnings = resolve(given(tmp_path / "two"), tmp_path / "home")
    assert digests(one) == digests(two)
    assert silent == []
    assert "notes.txt" in warnings[0]
    assert uri_of(given(tmp_path / "one"), one, "sub/a.html") == str(tmp_path / "one/sub/a.html")
    (tmp_path / "one" / "b.html").write_bytes(b"<p>c")
    os.utime(tmp_path / "one" / "b.html", ns=(1, 1))
    again, _ = resolve(given(tmp_path / "one"), tmp_path / "home")
    assert digests(again)["sub/a.html"] == digests(one)["sub/a.html"]
    assert digests(again)["b.html"] != digests(one)["b.html"]


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    """A folder that is not there, or holds nothing of the kind, is an error of the configuration that names it."""
    with pytest.raises(ConfigError, match=f"path of source 'given' is '{tmp_path}/none': no such folder"):
        resolve(given(tmp_path / "none"), tmp_path / "home")
    write_bytes(str(tmp_path / "some" / "a.html"), b"<p>a")
    with pytest.raises(ConfigError, match=r"no file ends in \.warc or \.warc\.gz"):
        resolve(given(tmp_path / "some", "warc"), tmp_path / "home")


def test_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    """A link that leads out of a source's folder is refused; nothing outside is ever read."""
    write_bytes(str(tmp_path / "secret.html"), b"secret")
    write_bytes(str(tmp_path / "some" / "a.html"), b"<p>a")
    (tmp_path / "some" / "b.html").symlink_to(tmp_path / "secret.html")
    with pytest.raises(InputError, match=r"b\.html: a link that leaves the folder"):
        resolve(given(tmp_path / "some"), tmp_path / "home")


def test_s3_prefix_is_listed(bucket: str, tmp_path: Path) -> None:
    """An s3 prefix is listed relative to itself; an object that changes gets another stamp."""
    source = Source(name="given", kind="html", path=f"{bucket}/pages")
    write_bytes(f"{bucket}/pages/sub/a.html", b"<p>a")
    one, _ = resolve(source, tmp_path)
    write_bytes(f"{bucket}/pages/sub/a.html", b"<p>b")
    two, _ = resolve(source, tmp_path)
    assert list(digests(one)) == ["sub/a.html"]
    assert digests(one) != digests(two)
    with pytest.raises(ConfigError, match="no such folder"):
        resolve(Source(name="given", kind="html", path=f"{bucket}/none"), tmp_path)


def test_package_names_are_checked(tmp_path: Path) -> None:
    """Only the name of a package ever reaches apt's command line."""
    with pytest.raises(InputError, match="not the name of a Debian package"):
        download(["-oDir::Etc=/tmp"], tmp_path)


def test_without_a_client_pydoc_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no apt is there, pydoc's pages stand in said in a warning; fetched once, and again if damaged."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NothingFetchedError, match="apt-get"):
        download(["apache2-doc"], tmp_path)
    first, warnings = resolve(PYDOC, tmp_path / "home")
    assert "3 pages that pydoc rendered" in warnings[-1]
    (mark,) = (tmp_path / "home").glob("docs-*/source.json")
    stamp = mark.stat().st_mtime_ns
    assert resolve(PYDOC, tmp_path / "home") == (first, warnings)
    assert mark.stat().st_mtime_ns == stamp
    (mark.parent / "files/web-00000.warc.gz").write_bytes(b"damaged")
    assert resolve(PYDOC, tmp_path / "home") == (first, warnings)
    assert mark.stat().st_mtime_ns != stamp
    assert list((tmp_path / "home").iterdir()) == [mark.parent]


def test_another_limit_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two configurations that fetch the same source with other limits do not fetch over each other."""
    monkeypatch.setenv("PATH", str(tmp_path))
    few = PYDOC.model_copy(update={"limit": 2})
    first, second = (resolve(source, tmp_path / "home")[0] for source in (PYDOC, few))
    assert first.home != second.home
    assert is_fetched(PYDOC, tmp_path / "home") and is_fetched(few, tmp_path / "home")
