"""Guarantees of the replacement of personal data: what is replaced, what is left alone, and that both are stable."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data_curation.pii import PiiConfig, replace
from tests.data_curation.prose import text

CONFIG = PiiConfig()
FOUND = {
    "email": [
        "jane.doe@mail.firm.de",
        "o'neill+news@sub.domain.co.uk",
        "jürgen@müller.de",
        "a_b-c@xn--mller-kva.de",
        "JOE@FIRM.ORG",
        "иван@почта.рф",
    ],
    "ip": ["81.2.69.142", "8.8.4.4:53 is a server 81.2.69.160", "2a00:1450:4001:81b::200e", "2001:4860:4860::8888"],
    "phone": [
        "+49 30 901820",
        "+1 (212) 736-5000",
        "+33 1 44 50 20 20",
        "+4915112345678",
        "(212) 736-5000",
        "212-736-5000",
        "030 901 8200",
        "01 44 50 20 20",
        "Tel. 901820 77",
        "phone: 00 44 20 7946 0018",
        "Fax: (089) 23451234",
        "+33\u00a01\u00a044\u00a050\u00a020\u00a020",
    ],
    "iban": ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "FR14 2004 1010 0505 0001 3M02 606"],
    "credit_card": ["4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005", "3782 822463 10005"],
}
"""Made up or published for tests by those who issue them."""
LEFT = [
    *("user@example.com", "root@localhost", "sshd@.service", "getty@tty1.service", "logo@2x.png", "@handle", "a@b"),
    *("git@", "https://site.org/@name/1", "192.168.0.1", "127.0.0.1", "10.0.0.255", "version 8.8.4.4", "4.15.0.20"),
    *("since 81.2.69.142", "1.2.3.4.5", "255.255.255.0", "fe80::1", "::1", "12:30:45", "2001:db8::1", "224.0.0.251"),
    *("2026-11-25", "25.11.2026", "1,234,567.89", "1234567890", "ISBN 978-3-16-148410-0", "10.1000/182", "3.14159265"),
    *("1914-1918, 1939-1945", "00 01 02 03 04 05 06", "555-0100", "+1 202-555-0100", "0x7fff5fbff8c0", "2147483647"),
    *("1 2 3 4 5 6 7 8 9 10", "RFC 2119", "+12.5", "1e+10", "4111 1111 1111 1112", "1234 5678 9012 3456"),
    *("DE89 3704 0044 0532 0130 01", "XX00 0000 0000 0000", "GB00 0000", "0000 0000 0000 0000", "AB12 text follows"),
    *("192.0.2.7", "sha256 1234567812345678123456781234567812345678", "f(x) = 100 200 300 400", "-81.2.69.142-1"),
]
"""Reserved, private, invalid, or something else altogether."""


@pytest.mark.parametrize("kind", FOUND)
def test_each_form_is_replaced_and_counted(kind: str):
    """Every form of a kind is found in a sentence, replaced by the reserved one, and counted under its kind."""
    for one in FOUND[kind]:
        before, after = "Yesterday he gave it to us, ", ", and so on."
        new, found = replace(before + one + after, CONFIG)
        assert dict(found) == {kind: 1 + ("server" in one)}, one
        assert new.startswith(before) and new.endswith(after)
        assert getattr(CONFIG, {"ip": "ipv6" if "::" in one else "ipv4"}.get(kind, kind)) in new


@pytest.mark.parametrize("one", LEFT)
def test_what_is_nobodys_stays(one: str):
    """Reserved and private addresses, invalid numbers, dates, versions and figures stay to the sign."""
    for line in (one, f"He wrote {one} there.", f"({one})", f"{one}\n"):
        assert replace(line, CONFIG) == (line, {}), line


def test_prose_stays():
    """Text without personal data comes back as the same object."""
    for language in ("en", "de", "sv"):
        one = text(3, language, count=30)
        assert replace(one, CONFIG)[0] is one


def test_only_asked_kinds_by_own_words():
    """Kinds can be chosen, and what stands in their place; what would itself be replaced is refused."""
    one = "jane@firm.de, 81.2.69.142"
    assert replace(one, PiiConfig(kinds=["ip"], ipv4="[address]"))[0] == "jane@firm.de, [address]"
    assert replace(one, PiiConfig(kinds=[])) == (one, {})
    with pytest.raises(ValidationError, match=r"clean\.pii\.email is 'me@firm\.de', which would be replaced itself"):
        PiiConfig(email="me@firm.de")


PIECES = st.sampled_from(
    [
        *[one for many in FOUND.values() for one in many],
        *LEFT,
        *("@", ".", "+", "-", " ", "\n", "/", "(", ")", ":", "0", "12", "34 56", "word", "tel ", "\u00a0", "é", "DE89"),
    ]
)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.lists(st.one_of(PIECES, st.text(max_size=3)), max_size=8), st.sampled_from([", ", "\n\n", " and ", "; "]))
def test_a_second_pass_finds_nothing(pieces: list[str], gap: str):
    """Whatever the text, what has been through stays as it is; a text without a find is the same object."""
    one = gap.join(pieces)
    new, found = replace(one, CONFIG)
    assert found or new is one
    assert replace(new, CONFIG) == (new, {})
