"""Guarantees of URL lists: all spellings of an address are one, and a list blocks what it names and nothing else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_curation.settings import InputError
from data_curation.url_list import UrlList, normal_url

SAME = [
    ["http://www.example.com", "https://example.com/", "HTTPS://Example.COM:443/", "example.com", "//example.com", "http://u:p@example.com#x"],
    ["https://example.com/a/b", "http://example.com:80/a/./c/../b/", "example.com/%61/b", "https://example.com/a/b?utm_source=x"],
    ["https://example.com/?b=2&a=1", "http://www.example.com?a=1&b=2&gclid=7", "https://example.com/?a=1&b=2#top"],
    ["https://xn--mller-kva.de/ä", "https://MÜLLER.de/%c3%a4", "müller.de/%C3%A4/"],
    ["http://example.com/a%2Fb", "https://example.com/a%2fb"],
]  # fmt: skip
OTHER = [
    *("https://example.com/A", "https://example.com/a?x=1", "https://example.org", "https://example.com:8080"),
    *("https://a.example.com", "https://example.com/a/b/c", "https://example.com/?a=2", "ftp://example.com/a"),
]


def test_spellings_of_one_address_are_equal():
    """Scheme, case, port, user, slash, dots, escapes, order, trackers and fragments make no difference."""
    for group in SAME:
        assert len({normal_url(url) for url in group}) == 1, group
    assert len({normal_url(url) for url in [*OTHER, *(group[0] for group in SAME)]}) == len(OTHER) + len(SAME)


PARTS = st.sampled_from(["/", "?", "&", "=", "%41", "%2f", "..", "/./", "#", "@", ":8", "ü", " ", "B", "utm_x=1", ";"])


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(["", "http://", "HTTPS://www.", "ftp://"]), st.lists(PARTS, max_size=9))
def test_normal_addresses_stay(start: str, parts: list[str]):
    """A second pass changes nothing."""
    once = normal_url(f"{start}a.example/{''.join(parts)}")
    assert normal_url(once) == once


def test_a_list_blocks_what_it_names():
    """Domains block what is below them, URLs what continues them at a boundary, words what holds them whole."""
    listed = UrlList(
        ["# comment", "", "bad.example", "https://good.example/private", "good.example/q?id=7"], ["Casino"]
    )
    assert len(listed) == 4
    blocked = {
        "blocked-domain": ["http://bad.example", "https://a.b.bad.example/x", "bad.example:8080"],
        "blocked-url": ["http://good.example/private", "good.example/private/x?y", "good.example/q?id=7&z=1"],
        "blocked-word": [
            "https://fine.example/best-casino",
            "https://casino.example",
            "https://fine.example/c%61sino/",
        ],
    }
    for reason, urls in blocked.items():
        assert [listed.reason(url) for url in urls] == [reason] * len(urls)
    free = [
        "notbad.example",
        "good.example",
        "good.example/privateer",
        "good.example/q?id=77",
        "casinos.example",
        "",
        "::",
    ]
    assert [listed.reason(url) for url in free] == [""] * len(free)


@pytest.mark.parametrize(("lines", "words"), [(["two words.example"], []), (["http://"], []), ([], ["two words"])])
def test_a_wrong_entry_is_named(lines: list[str], words: list[str]):
    """What is neither domain nor URL nor word is an error that quotes it."""
    with pytest.raises(InputError, match=r"is (neither a domain nor a URL|not letters and digits alone); correct it"):
        UrlList(lines, words)
