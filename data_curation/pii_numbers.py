"""Where phone, card and bank account numbers stand in a text."""

import re
from collections.abc import Iterator
from functools import cache

Span = tuple[int, int, str]
"""Start, end and kind of a part of a text."""

_GAP = "[ \u00a0./()\u2010\u2011-]"
_RUN = re.compile(rf"(?<![\w/\\+-])(?<!\d[.,:])[+(]{{0,2}}\d(?:{_GAP}{{0,3}}\d){{6,}}(?!\w)")
_CODE = re.compile(
    r"1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|21[12368]|2[2346]\d|25[0-8]|29[0179]|35\d|37\d"
    r"|38[0-35-79]|42[013]|50\d|59\d|67[02-9]|68[0-35-9]|69[0-2]|8[05]0|808|85[2356]|87[08]|88[0-36]|96\d|97[0-79]|99[2-8]"
)
"""Calling codes in use (ITU-T E.164)."""
_AMERICAN = re.compile(r"(?:1[ .-])?(?:\(([2-9]\d\d)\)[ -]?|([2-9]\d\d)([.-]))([2-9]\d\d)(?(3)\3|[ .-])(\d{4})")
_TRUNK = re.compile(
    r"\(?0[1-9]\d{1,3}\)?([ -])\d{3,4}\1\d{3,4}|0[1-9](?:([ .-])\d\d)(?:\2\d\d){3}|\(0[1-9]\d{1,3}\) ?\d{5,8}"
)
_CALL = re.compile(
    r"(?:\b(?:tel|tél|tele[fp]h?on\w{0,3}|téléphone|telef|teléfono|phone|fax|telefax|mobile?|cell|handy|gsm|whatsapp|sms"
    r"|тел|телефон|факс)\b|[☎☏✆📞])[^\w\n]{0,6}(?:(?:number|no|nr|is|us|at)\b[^\w\n]{0,4}){0,2}\Z",
    re.IGNORECASE,
)
_DATE = re.compile(r"(?:19|20)\d\d[-./ ]?[01]\d[-./ ]?[0-3]\d")
_CARD = re.compile(r"\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|3\d{3}([ -])\d{6}\2\d{4,5}|\d{13,19}")
_ISSUER = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[689]\d)\d{11}|35(?:2[89]|[3-8]\d)\d{12}|(?:6011|65\d\d|64[4-9]\d|62\d\d)\d{12}"
)
"""Visa, Mastercard (both ranges), American Express, Diners Club, JCB, Discover and UnionPay, by prefix and length."""
_HEX = r"(?=[A-Fa-f]*\d)[0-9A-Fa-f]{2,4}"
"""Of a row of bytes or digits; letters alone are a word."""
_AFTER_GROUP = re.compile(rf"[\w.]\Z|\b{_HEX}[ .-]\Z")
_BEFORE_GROUP = re.compile(rf"\d|[ .-]{_HEX}\b")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d\d(?=[ \u00a0-]?[A-Z0-9])")
_COUNTRIES = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 "
    "ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 "
    "LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 "
    "PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 "
    "YE30"
)
_LENGTHS = {entry[:2]: int(entry[2:]) for entry in _COUNTRIES.split()}
"""Characters of an IBAN by country (SWIFT's registry)."""


def phones(text: str) -> Iterator[Span]:
    """Phone numbers: after a plus, behind a word that says so, or of a national shape."""
    for run in _RUN.finditer(text):
        called = _CALL.search(text, max(0, run.start() - 40), run.start())
        whole = run[0].lstrip("(") if ")" not in run[0] else run[0]
        if _international(whole, bool(called)) or (called and _national(whole)):
            spans = [(run.end() - len(whole), run.end())]
        else:
            spans = _shaped(text, run.start(), run.end())
        for start, end in spans:
            digits = _digits(text[start:end])
            if not (digits[-7:-2] == "55501" and len(digits) in (10, 11)):
                yield start, end, "phone"


def _international(run: str, called: bool) -> bool:
    """Whether digits after a plus (or two zeros, where somebody says that it is a phone) are a number."""
    digits = _digits(run)
    if not run.lstrip("(").startswith("+"):
        if not (called and digits.startswith("00")):
            return False
        digits = digits[2:]
    gaps = re.sub(r"[+\d]", "", run.strip("("))
    if not 8 <= len(digits) <= 15 or not _CODE.match(digits) or (not gaps and len(digits) < 10):
        return False
    if digits[0] == "1" and (len(digits) != 11 or digits[1] in "01"):
        return False
    # A sign and a decimal fraction, or a row of small numbers.
    return called or (gaps != "." and len(re.findall(r"(?<!\d)\d(?!\d)", run)) < 4)


def _national(run: str) -> bool:
    """Whether what somebody calls a phone number can be one."""
    return len(_digits(run)) <= 15 and not _DATE.match(run) and not re.fullmatch(r"\d+(?:\.\d+|(?:\.\d{1,3}){3})", run)


def _shaped(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Numbers that are told by their shape: North American ones, and those with a zero before the area."""
    for pattern in (_AMERICAN, _TRUNK):
        for match in pattern.finditer(text, start, end):
            if _alone(text, match.start(), match.end()) and (pattern is _AMERICAN or _trunk(match[0])):
                yield match.span()


def _trunk(number: str) -> bool:
    """Whether it has as many digits as such numbers have, and is no row of bytes or octal offsets."""
    digits = _digits(number)
    pairs = [digits[at : at + 2] for at in range(0, len(digits), 2)]
    return 10 <= len(digits) <= 11 and (len(number) < 14 or pairs != sorted(pairs))


def cards(text: str) -> Iterator[Span]:
    """Card numbers with an issuer's prefix and a valid check digit."""
    for run in _RUN.finditer(text):
        for match in _CARD.finditer(text, run.start(), run.end()):
            digits = _digits(match[0])
            if _ISSUER.fullmatch(digits) and _luhn(digits) and _alone(text, match.start(), match.end()):
                yield *match.span(), "credit_card"


def ibans(text: str) -> Iterator[Span]:
    """International bank account numbers with valid check digits."""
    for match in _IBAN.finditer(text):
        pattern = _iban_of(match[0][:2])
        whole = pattern.match(text, match.start()) if pattern else None
        if whole:
            plain = re.sub(r"[^A-Z0-9]", "", whole[0])
            if int("".join(str(int(sign, 36)) for sign in plain[4:] + plain[:4])) % 97 == 1:
                yield *whole.span(), "iban"


@cache
def _iban_of(country: str) -> re.Pattern[str] | None:
    length = _LENGTHS.get(country)
    return re.compile(rf"[A-Z]{{2}}\d\d(?:[ \u00a0-]?[A-Z0-9]){{{length - 4}}}(?![A-Za-z0-9])") if length else None


def _alone(text: str, start: int, end: int) -> bool:
    """Whether a number is not part of a longer row of digits."""
    before, after = text[max(0, start - 5) : start], text[end : end + 5]
    return not (_AFTER_GROUP.search(before) or _BEFORE_GROUP.match(after))


def _digits(number: str) -> str:
    return "".join(filter(str.isdigit, number))


def _luhn(digits: str) -> bool:
    """Whether the last digit checks the others (ISO/IEC 7812-1)."""
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(int(digit) for digit in digits[::-2])) % 10 == 0
