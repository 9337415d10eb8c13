"""Guarantees about pages that are built to take for ever: dropped by name, and nothing else with them."""

import os
import signal

import pytest

from data_curation.html_cost import estimate, harmless
from data_curation.html_lean import Lean
from data_curation.html_sandbox import SANDBOX, Sandbox
from data_curation.html_text import MAIN_SHARE, MAX_DEPTH, MAX_SECONDS, extract_html, take
from data_curation.settings import TransientError
from tests.data_curation.prose import page

# Each closes for the estimate what it leaves open for the parser.
DECEIVERS = {
    "script": b"<div><script></div></script>" * 40_000 + b"x",
    "comment": b"<div><!--</div>-->" * 40_000 + b"x",
    "quotes": b'<a x=\'"\' y=">" ' + b" ".join(b"a%d" % number for number in range(200_000)) + b">x",
}
PAGE = Lean(page(1), 0)


@pytest.mark.parametrize("name", DECEIVERS)
def test_page_that_deceives_the_estimate_is_dropped_and_the_next_is_not(name: str) -> None:
    """It ends its process, not ours; the next page gets a new process and its whole text."""
    bomb = DECEIVERS[name]
    cost = estimate(bomb, MAX_DEPTH, MAX_SECONDS)
    assert not harmless(bomb) and cost.depth <= MAX_DEPTH and cost.seconds <= MAX_SECONDS
    sandbox = Sandbox(seconds=1)
    assert sandbox.take(Lean(bomb, 0), None, None, MAIN_SHARE).reason == "too-slow"
    assert sandbox.take(PAGE, None, None, MAIN_SHARE) == take(PAGE, None, None, MAIN_SHARE)
    sandbox.close()


def test_sandbox_changes_nothing() -> None:
    """A page of many tags has the text that it has without a sandbox."""
    large = b"<html lang=de><title>T</title>" + b"<p>Some words, and more of them.</p>" * 4_000
    assert not harmless(large)
    found = extract_html(large, "https://a.example/")
    assert found == take(Lean(large, 0), "https://a.example/", None, MAIN_SHARE) and len(found.text) > 30_000


def test_killed_sandbox_is_an_error_and_not_a_drop() -> None:
    """A process that the system killed says nothing about the page: the stage may be tried again."""
    sandbox = Sandbox()
    sandbox.take(PAGE, None, None, MAIN_SHARE)
    assert sandbox.process
    os.kill(sandbox.process.pid, signal.SIGKILL)
    with pytest.raises(TransientError, match="ended with code -9"):
        sandbox.take(PAGE, "https://a.example/", None, MAIN_SHARE)
    assert sandbox.take(PAGE, None, None, MAIN_SHARE).text
    sandbox.close()


@pytest.mark.parametrize("indent", [b"", b" " * 90_000, b"\n        a=1 b / c" * 9_000])
def test_page_of_few_tags_needs_no_sandbox(indent: bytes) -> None:
    """Usual pages never start the process, however they are indented and whatever their text is."""
    SANDBOX.close()
    assert extract_html(page(1) + indent, None).text and SANDBOX.process is None


@pytest.mark.parametrize(
    "bomb",
    [
        b"<div>" * 2_900 + b"x" * 3_000_000,
        b"<div " + b"=/" * 1_500_000 + b">x",
        b"<div " + b"\n".join(b"a%d" % number for number in range(70_000)) + b">x",
    ],
)
def test_page_that_few_tags_make_slow_is_not_harmless(bomb: bytes) -> None:
    """Long text in many elements and attributes by the thousand are looked at, however few the tags."""
    assert bomb.count(b"<") < 3_000 and not harmless(bomb)
