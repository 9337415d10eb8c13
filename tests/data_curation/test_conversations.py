"""Conversations from packages: planted questions, how-to pages and small talk come out as messages."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from data_curation.settings import InputError
from data_curation.sources.conversations import write
from data_curation.sources.listing import resolve
from data_curation.sources.source import Source

POD = """=head1 NAME

perlfaq1 - made for a test

=head1 Things: plain

=head2 How do I compare C<< $a <=> $b >> and C<$c>?

Use the L<operator|perlop> or
see L<https://example.org/x>. Write E<lt>B<bold>E<gt>.

    my $code = 1;

=over 4

=item * first

=back

=begin html

not shown

=end html

=head2 Why?

Because.

=head1 AUTHOR

nobody
"""
PAGE = """<?xml version="1.0"?>
<page xmlns="http://projectmallard.org/1.0/" id="x">
 <info><desc>hidden</desc></info>
 <title>Open the <gui>box</gui></title>
 <p>It is
   easy.</p>
 <steps><item><p>Lift.</p></item><item><p>Look <em>in</em>.</p></item></steps>
 <section><title>More</title><p>Done.</p></section>
</page>
"""


@pytest.fixture
def unpacked(tmp_path: Path) -> dict[str, Path]:
    """Two package trees with one planted file each, in the packages' own layout."""
    pod = tmp_path / "perl-doc/usr/share/perl/5.99/pod/perlfaq1.pod"
    pages = [tmp_path / f"gnome-user-docs/usr/share/help/{name}/gnome-help/box.page" for name in ("C", "de", "xx")]
    for path, text in [(pod, POD), *((page, PAGE) for page in pages)]:
        path.parent.mkdir(parents=True)
        path.write_text(text)
    (pages[0].parent / "plain.page").write_text(PAGE.replace("steps>", "list>"))
    return {name: tmp_path / name for name in ("perl-doc", "gnome-user-docs")}


def rows(path: Path) -> list[dict[str, Any]]:
    """The records of one file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_faq_gives_its_questions_with_plain_answers(unpacked: dict[str, Path], tmp_path: Path) -> None:
    """Headings become user turns, formatting codes become text, code keeps its lines, other formats are left out."""
    write(["perl-doc"], unpacked, tmp_path)
    one, two = rows(tmp_path / "perl-doc.jsonl")
    assert one["messages"] == [
        {"role": "user", "content": "How do I compare $a <=> $b and $c?"},
        {
            "role": "assistant",
            "content": "Use the operator or see https://example.org/x. Write <bold>.\n\n    my $code = 1;\n\n- first",
        },
    ]
    assert [turn["content"] for turn in two["messages"]] == ["Why?", "Because."]


def test_how_to_pages_with_steps_give_numbered_answers(unpacked: dict[str, Path], tmp_path: Path) -> None:
    """Pages with steps in the chosen languages come out, their steps numbered; pages without steps do not."""
    write(["gnome-user-docs"], unpacked, tmp_path)
    found = rows(tmp_path / "gnome-user-docs.jsonl")
    assert [row["language"] for row in found] == ["en", "de"]
    assert [turn["content"] for turn in found[0]["messages"]] == [
        "Open the box",
        "It is easy.\n1. Lift.\n2. Look in.\nMore\nDone.",
    ]


def test_the_installed_corpus_gives_alternating_turns(tmp_path: Path) -> None:
    """Small talk is read from the installed package in many languages, turns alternate and nearly all are answered."""
    write(["chatterbot-corpus"], {}, tmp_path)
    found = rows(tmp_path / "chatterbot-corpus.jsonl")
    assert len(found) > 5000
    assert len({row["language"] for row in found}) > 20
    for row in found:
        roles = [turn["role"] for turn in row["messages"]]
        assert roles == (["user", "assistant"] * len(roles))[: len(roles)]
    assert sum(len(row["messages"]) % 2 == 0 for row in found) > 0.99 * len(found)


def test_equal_packages_give_equal_bytes_and_missing_ones_are_left_out(
    unpacked: dict[str, Path], tmp_path: Path
) -> None:
    """Two writes agree byte for byte; a package that could not be fetched leaves no file."""
    digests: list[list[str]] = []
    for name in ("first", "second"):
        out = tmp_path / name
        out.mkdir()
        write(["perl-doc", "gnome-user-docs"], {"perl-doc": unpacked["perl-doc"]}, out)
        digests.append([path.name + hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.iterdir())])
    assert digests[0] == digests[1]
    assert len(digests[0]) == 1


def test_a_damaged_page_and_an_unknown_package_are_named(unpacked: dict[str, Path], tmp_path: Path) -> None:
    """Broken XML names its file, a package without a reader its name, a package of another layout itself."""
    (unpacked["gnome-user-docs"] / "usr/share/help/de/gnome-help/box.page").write_text(PAGE[:-9])
    with pytest.raises(InputError, match=r"de/gnome-help/box.page: not well-formed"):
        write(["gnome-user-docs"], unpacked, tmp_path)
    with pytest.raises(InputError, match="'emacs'"):
        write(["emacs"], unpacked, tmp_path)
    with pytest.raises(InputError, match="perl-doc: no conversation"):
        write(["perl-doc"], {"perl-doc": unpacked["gnome-user-docs"]}, tmp_path)


def test_a_source_of_installed_packages_alone_asks_no_archive(tmp_path: Path) -> None:
    """The corpus that comes with Python is listed without a word about Debian's archive, and listed the same again."""
    source = Source(name="talk", kind="chat-packages", packages=["chatterbot-corpus"])
    listed, warnings = resolve(source, tmp_path)
    assert warnings == []
    assert [file.path for file in listed.part("files").files] == ["chatterbot-corpus.jsonl"]
    assert resolve(source, tmp_path) == (listed, [])
