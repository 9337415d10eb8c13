"""Which URLs are blocked: by domain, by the start of the URL or by a word in it."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

from data_curation.settings import InputError

_TRACKING = re.compile(
    r"(?:utm|mtm|hsa|__hs|pk)_\w+|_hs(?:enc|mi)|mc_[ce]id|_g[al]|gclsrc|(?:g|d|y|fb|tw|tt|ys|rb_)clid|msclkid|li_fat_id"
    r"|gad_source|[gw]braid|igshid|mkt_tok|oly_(?:anon|enc)_id|vero_id|srsltid|ref_src|jsessionid|phpsessid"
    r"|aspsessionid\w*",
    re.IGNORECASE,
)
"""Names of parameters that say where a reader came from or who he is, never what he gets."""
_SESSION = re.compile(r";jsessionid=[^/;?]*", re.IGNORECASE)
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNSAFE = re.compile(r"[^!-~]+")
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")
"""What needs no escape anywhere in a URL (RFC 3986, section 2.3)."""
_IGNORED = {ord(sign): None for sign in "\t\n\r"}
_DELIMITERS = frozenset("/?#@:[]\\%")
_WORD = re.compile(r"[^\W_]+")


def normal_url(url: str) -> str:
    """What all spellings of one address have in common, for comparing and never for fetching.

    Gone are http and https, user, `www.`, default ports, fragment, slashes at the end and parameters of trackers and
    sessions; the host is in lower case and punycode, escapes are as RFC 3986 section 6.2.2 wants them, parameters are
    sorted by name. A domain alone is a URL too. Normal URLs stay as they are; whatever is no URL has some outcome.
    """
    url = url.strip().translate(_IGNORED)
    scheme, mark, rest = url.partition("://")
    scheme = scheme.lower() if mark and scheme.replace("+", "").replace("-", "").replace(".", "").isalnum() else ""
    rest = rest if scheme else url.lstrip(":/")
    web = scheme in ("", "http", "https")
    if web:
        rest = rest.replace("\\", "/").lstrip("/")
    rest = rest.partition("#")[0]
    rest, _, query = rest.partition("?")
    host, slash, path = rest.partition("/")
    normal = _host(host, web) + _path(slash + path)
    if query and (query := _query(query)):
        normal += "?" + query
    return normal if web else f"{scheme}://{normal}"


class UrlList:
    """Blocked domains and starts of URLs as sorted 64-bit hashes, 8 bytes for each, and blocked words.

    Two entries in a hundred million million share a hash, so an innocent URL is never met in practice.
    """

    def __init__(self, lines: Iterable[str], words: Iterable[str] = ()) -> None:
        """Read entries, one a line; empty lines and those that start with `#` are passed over.

        `example.com` blocks the domain and all below it; `example.com/a` (with or without https://) blocks that page
        and all that start with it up to a `/`, `?` or `&`. `words` block URLs that hold them between other signs than
        letters and digits. InputError names an entry that is none of these.
        """
        domains, starts = bytearray(), bytearray()
        for number, line in enumerate(lines, 1):
            entry = line.strip()
            if not entry or entry.startswith("#"):
                continue
            normal = normal_url(entry)
            if not normal or len(entry.split()) > 1:
                raise InputError(f"block list, line {number}: {entry[:80]!r} is neither a domain nor a URL; correct it")
            (starts if set(normal) & set("/?:") else domains).extend(_hash(normal).to_bytes(8, "little"))
        self.domains, self.starts = _sorted(domains), _sorted(starts)
        self.words = frozenset(word.strip().casefold() for word in words)
        for word in self.words:
            if not _WORD.fullmatch(word):
                raise InputError(f"blocked words of URLs: {word!r} is not letters and digits alone; correct it")

    def __len__(self) -> int:
        """Entries, each once."""
        return len(self.domains) + len(self.starts) + len(self.words)

    def reason(self, url: str) -> str:
        """Why a URL is blocked: `blocked-domain`, `blocked-url`, `blocked-word`; empty where it is not."""
        normal = normal_url(url)
        if _met(self.domains, _domains(normal)):
            return "blocked-domain"
        if _met(self.starts, _starts(normal)):
            return "blocked-url"
        if self.words and not self.words.isdisjoint(_WORD.findall(_unescaped(url).casefold())):
            return "blocked-word"
        return ""


def _host(host: str, web: bool) -> str:
    host = host.rpartition("@")[2].lower()
    if host.startswith("["):
        host, _, port = host.partition("]")
        host, port = host + "]", port.lstrip(":")
    else:
        host, _, port = host.partition(":")
        host = (host if host.isascii() else _punycode(host)).rstrip(".")
    if host.startswith("www.") and "." in host[4:]:
        host = host[4:]
    port = port.lstrip("0") if port.isdecimal() else port
    return f"{host}:{port}" if port and not (web and port in ("80", "443")) else host


def _punycode(host: str) -> str:
    """A host in ASCII; its labels are not checked further, since it is only compared."""
    plain = unicodedata.normalize("NFKC", host).lower()
    plain = unicodedata.normalize("NFC", host if set(plain) & _DELIMITERS else plain).replace("\u3002", ".")
    labels = plain.split(".")
    return ".".join(
        label if label.isascii() else "xn--" + label.encode("punycode", "replace").decode("ascii") for label in labels
    )


def _path(path: str) -> str:
    path = _escaped(path)
    if ";" in path:
        path = _SESSION.sub("", path)
    if "/." in path:
        path = _without_dots(path)
    return path.rstrip("/")


def _without_dots(path: str) -> str:
    """A path without `.` and `..` (RFC 3986, section 5.2.4)."""
    kept = list[str]()
    for part in path.split("/")[1:]:
        if part == "..":
            kept = kept[:-1]
        elif part != ".":
            kept.append(part)
    return "".join("/" + part for part in kept)


def _query(query: str) -> str:
    query = _escaped(query).replace("+", "%20")
    kept = [pair for pair in query.split("&") if pair and not _TRACKING.fullmatch(pair.partition("=")[0])]
    return "&".join(sorted(kept, key=lambda pair: pair.partition("=")[0]))


def _escaped(part: str) -> str:
    """Escapes in upper case where they are needed, and none elsewhere."""
    if "%" in part:
        part = _ESCAPE.sub(_escape, part)
    return _UNSAFE.sub(_escapes, part)


def _escape(match: re.Match[str]) -> str:
    sign = chr(int(match[1], 16))
    return sign if sign in _LETTERS else match[0].upper()


def _escapes(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "replace"))


def _unescaped(url: str) -> str:
    from urllib.parse import unquote

    return unquote(url)


def _domains(normal: str) -> Iterator[str]:
    """The host of a normal URL and all domains above it."""
    host = re.split(r"[/?]", normal.partition("://")[2] or normal, maxsplit=1)[0]
    host = host if host.startswith("[") else host.partition(":")[0]
    while host:
        yield host
        host = host.partition(".")[2]


def _starts(normal: str) -> Iterator[str]:
    """A normal URL and what precedes each of its parts."""
    yield normal
    for mark in re.finditer(r"[/?&]", normal):
        yield normal[: mark.start()]


def _hash(text: str) -> int:
    import xxhash

    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "replace"))


def _sorted(hashes: bytearray) -> Any:
    import numpy as np

    return np.unique(np.frombuffer(hashes, "<u8"))


def _met(known: Any, texts: Iterable[str]) -> bool:
    import numpy as np

    if not len(known):
        return False
    asked = np.array([_hash(text) for text in texts], np.uint64)
    return bool((known[np.searchsorted(known, asked).clip(max=len(known) - 1)] == asked).any())
