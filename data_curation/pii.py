"""E-mail and IP addresses, phone numbers, IBANs and card numbers, replaced by harmless ones."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Literal, Self

from pydantic import model_validator

from data_curation.pii_numbers import Span, cards, ibans, phones
from data_curation.settings import Settings

Kind = Literal["email", "ip", "phone", "iban", "credit_card"]

_LETTER = "A-Za-z0-9À-ÖØ-öø-ɏͰ-ӿ"
_LOCAL = "".join(chr(code) for code in (*range(128), *range(0xC0, 0x500)) if chr(code).isalnum()) + "._%+-'"
_MAIL = re.compile(rf"@((?:[{_LETTER}-]{{1,63}}\.){{1,8}}(?:xn--[a-z0-9-]{{2,59}}|[^\W\d_]{{2,24}}))(?![{_LETTER}@])")
_RESERVED = re.compile(r"(?:.*[.@])?(?:example\.(?:com|net|org)|example|invalid|test|localhost|local)", re.IGNORECASE)
_FILE = re.compile(
    r".*\.(?:service|socket|target|timer|mount|automount|swap|path|slice|scope|device|conf|cfg|ini|log|png|jpe?g|gif"
    r"|svg|webp|html?|xml|json|ya?ml|txt|py|rb|js|mjs|ts|tsx|css|java|class|jar|so|gz|tgz|zip|deb|rpm|git)",
    re.IGNORECASE,
)
"""No domains: instances of systemd's units, pictures for dense screens, versions of packages."""
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_V4 = re.compile(rf"(?<![\w.,~+-])(?<![^/]/){_OCTET}(?:\.{_OCTET}){{3}}(?!\w|\.\w|[~+]|-(?!{_OCTET}\.\d)|/\d\d?\.)")
_V6 = re.compile(r"(?<![\w:.])[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{2,34}(?![\w:])")
_VERSION = re.compile(
    r"(?:\b(?:v|ver|version|versions|release|released|rev|revision|build|update|kernel|linux|firmware|driver|section"
    r"|sections|chapter|clause|table|figure|fig|appendix|oid|since|before|until)[.:]?\W{0,2}|[<>=]=?\s?|§\s?)\Z",
    re.IGNORECASE,
)
_ADDRESS = re.compile(
    r"(?:\b(?:ips?|ipv4|addr\w*|hosts?|servers?|ping|dns|nameserver|clients?|gateway|via|from|to)\b|//|@)"
)
_SMALL = 31
"""Four numbers up to this are a version or a section rather than an address, of which they are one in 4,000."""

_CLASSES = bytes(
    ord(" ") if code > 127 or chr(code) in " ()/-" else ord("0") if chr(code).isdigit()
    else ord("A") if chr(code).isupper() else code if chr(code) in ".:" else ord("a")
    for code in range(256)
)  # fmt: skip
"""Bytes of a text as digits, capitals, marks, gaps (as is all that is not ASCII) and the rest."""


class PiiConfig(Settings):
    """Which personal data are replaced, and by what."""

    kinds: list[Kind] = ["email", "ip", "phone", "iban", "credit_card"]
    """What to look for; none switches the replacement off."""
    email: str = "email@example.com"
    """In place of an e-mail address (RFC 2606 reserves the domain; addresses there are left alone)."""
    ipv4: str = "192.0.2.1"
    """In place of a public IPv4 address (RFC 5737 reserves the range for documentation)."""
    ipv6: str = "2001:db8::1"
    """In place of a public IPv6 address (RFC 3849)."""
    phone: str = "+1 202-555-0100"
    """In place of a phone number (555-0100 to 555-0199 are nobody's, and left alone)."""
    iban: str = "XX00 0000 0000 0000"
    """In place of an IBAN with valid check digits."""
    credit_card: str = "0000 0000 0000 0000"
    """In place of a card number with valid check digit."""

    @model_validator(mode="after")
    def _stable(self) -> Self:
        for name in ("email", "ipv4", "ipv6", "phone", "iban", "credit_card"):
            value: str = getattr(self, name)
            if replace(value, self)[1]:
                raise ValueError(f"clean.pii.{name} is {value!r}, which would be replaced itself: use a reserved one")
        return self


def replace(text: str, config: PiiConfig) -> tuple[str, Counter[str]]:
    """The text with harmless addresses and numbers in place of personal ones, and how many of each kind.

    Found are forms that can be told from other text by structure or check digits; bare numbers stay. A text that has
    been through stays as it is, unless one number ran into the next. Takes time in proportion to the text's length,
    whatever it holds.
    """
    spans = sorted((*span, kind) for kind in _worth(text, config) for span in _FINDERS[kind](text))
    found = Counter[str]()
    if not spans:
        return text, found
    parts, at = list[str](), 0
    for start, end, name, kind in spans:
        if start >= at:
            parts += [text[at:start], getattr(config, name)]
            at, found[kind] = end, found[kind] + 1
    return "".join([*parts, text[at:]]), found


def _worth(text: str, config: PiiConfig) -> list[Kind]:
    """The kinds that a text may hold, at a tenth of the cost of looking for them."""
    classes = text.encode("utf-8", "replace").translate(_CLASSES)
    close = classes.translate(None, b" .")
    many = b"0000000" in close
    may = {
        "email": "@" in text,
        "ip": classes.count(b"0.0") > 1 or b"::" in classes or classes.count(b":") > 6,
        "phone": many,
        "iban": b"AA00" in close,
        "credit_card": many,
    }
    return [kind for kind in config.kinds if may[kind]]


def _emails(text: str) -> Iterator[Span]:
    for match in _MAIL.finditer(text):
        at, domain = match.start(), match[1]
        before = text[max(0, at - 65) : at]
        local = before[len(before.rstrip(_LOCAL)) :].lstrip(".%+-'_")
        start = at - len(local)
        if not local or len(local) > 64 or local.endswith(".") or (start and text[start - 1] in "@:/"):
            continue
        if not (_RESERVED.fullmatch(domain) or _FILE.fullmatch(domain)):
            yield start, match.end(), "email"


def _addresses(text: str) -> Iterator[Span]:
    for match in _V4.finditer(text):
        address, start = IPv4Address(match[0]), match.start()
        before = text[max(0, start - 24) : start]
        # A last number of 0 is a network's, or a version's.
        if not address.is_global or address.is_multicast or address.packed[3] == 0 or _VERSION.search(before):
            continue
        if max(address.packed) > _SMALL or _ADDRESS.search(before.lower()):
            yield start, match.end(), "ipv4"
    for match in _V6.finditer(text):
        found = match[0] if match[0].endswith("::") else match[0].rstrip(":")
        try:
            address = IPv6Address(found)
        except AddressValueError:
            continue
        if address.is_global and not found.endswith("::"):
            yield match.start(), match.start() + len(found), "ipv6"


_FINDERS: dict[Kind, Callable[[str], Iterator[Span]]] = {
    "email": _emails,
    "ip": _addresses,
    "phone": phones,
    "iban": ibans,
    "credit_card": cards,
}
