"""Conversations out of documentation packages: Perl's FAQ, GNOME's how-to pages, a corpus of small talk."""

import importlib.util
import re
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import yaml

from data_curation.settings import InputError, canonical

LANGUAGES = ("C", "de", "es", "fr", "it", "ja", "nl", "pt_BR", "ru", "zh_CN")
"""Languages of the how-to pages: those of the embedded web pages; C is English."""
INSTALLED = ("chatterbot-corpus",)
"""Packages that come with Python's own client, not with Debian's."""
MALLARD = "{http://projectmallard.org/1.0/}"


def write(packages: list[str], unpacked: dict[str, Path], out: Path) -> None:
    """One `PACKAGE.jsonl` in `out` for each package that is there: {"messages", "source", "language"} a line.

    `unpacked` holds the folders of the Debian packages; the bytes follow from the packages' contents alone.
    """
    for package in packages:
        reader = READERS.get(package)
        if reader is None:
            raise InputError(f"package {package!r} has no reader for conversations: use {', '.join(READERS)}")
        root = _installed(package) if package in INSTALLED else unpacked.get(package)
        if root is None:
            continue  # the caller has already named what could not be fetched
        rows = [canonical({"messages": messages, "source": package, "language": language})
                for language, messages in reader(root)]  # fmt: skip
        if not rows:
            raise InputError(f"{package}: no conversation found below {root}; its layout may have changed")
        (out / f"{package}.jsonl").write_bytes(b"\n".join(rows) + b"\n")


def _installed(package: str) -> Path:
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise InputError(f"package {package!r} is not installed: pip install {package}")
    return Path(spec.origin).parent


# ---- perl-doc: plain old documentation ----------------------------------------------------------------------------


def _perl_faq(root: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for path in sorted(root.rglob("perlfaq[1-9].pod")):
        for question, answer in _questions(path.read_text("utf-8")):
            yield "en", _turns([question, answer])


def _questions(pod: str) -> Iterator[tuple[str, str]]:
    """The second-level headings, each with its text: in the FAQ they are the questions."""
    for section in re.split(r"^=head2 ", pod, flags=re.MULTILINE)[1:]:
        heading, _, body = section.partition("\n\n")
        answer = _plain_pod(re.split(r"^=(?:head1|cut)\b", body, flags=re.MULTILINE)[0])
        yield _codes(" ".join(heading.split())), answer


def _plain_pod(pod: str) -> str:
    paragraphs: list[str] = []
    skipping = False
    for paragraph in re.split(r"\n\s*\n", pod.strip("\n")):
        command = re.match(r"=(\w+)\s*(.*)", paragraph, flags=re.DOTALL)
        if command and command.group(1) in ("begin", "end"):
            skipping = command.group(1) == "begin"
        elif skipping:
            continue
        elif command:
            text = command.group(2).strip(" *\n") if command.group(1) == "item" else ""
            paragraphs += [f"- {_codes(text)}"] if text else []
        elif paragraph.startswith((" ", "\t")):
            paragraphs.append(paragraph.rstrip())  # verbatim: code keeps its lines
        elif paragraph.strip():
            paragraphs.append(_codes(" ".join(paragraph.split())))
    return "\n\n".join(paragraphs)


def _codes(text: str) -> str:
    """POD's formatting codes as plain text: C<code>, C<< a->b >>, L<text|target>, E<lt>."""
    text = re.sub(
        r"[A-Z](<{2,})\s+(.*?)\s+>{2,}", lambda found: found.group(2).translate({60: "\ue000", 62: "\ue001"}), text
    )
    before = ""
    while before != text:
        before, text = text, re.sub(r"([A-Z])<([^<>]*)>", _code, text)
    return text.replace("\ue000", "<").replace("\ue001", ">")


def _code(found: re.Match[str]) -> str:
    kind, inner = found.groups()
    if kind == "E":
        return {"lt": "\ue000", "gt": "\ue001", "verbar": "|", "sol": "/"}.get(inner, inner)
    if kind in "XZ":
        return ""
    if kind == "L":
        label, _, target = inner.partition("|")
        return label if target else label.replace("/", " ").replace('"', "").strip() if "://" not in label else label
    return inner


# ---- gnome-user-docs: Mallard pages -------------------------------------------------------------------------------


def _how_to(root: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for language in LANGUAGES:
        for path in sorted(root.glob(f"usr/share/help/{language}/gnome-help/*.page")):
            try:
                page = ElementTree.fromstring(path.read_bytes())
            except ElementTree.ParseError as error:
                raise InputError(f"{path}: not well-formed XML ({error}); fetch the package again") from None
            title = page.find(f"{MALLARD}title")
            if title is not None and page.find(f".//{MALLARD}steps") is not None:
                name = "en" if language == "C" else language.split("_")[0]
                yield name, _turns([_text(title), "\n".join(_lines(page))])


def _lines(element: Any) -> Iterator[str]:
    """Paragraphs as lines, the items of a list of steps numbered; headings of sections as lines of their own."""
    for child in element:
        tag = str(child.tag).removeprefix(MALLARD)
        if tag == "p" or (tag == "title" and element.tag != f"{MALLARD}page"):
            yield _text(child)
        elif tag == "steps":
            for number, item in enumerate(child.iterfind(f"{MALLARD}item"), 1):
                yield f"{number}. {' '.join(_lines(item))}"
        elif tag not in ("info", "title", "links", "media", "comment"):
            yield from _lines(child)


def _text(element: Any) -> str:
    return " ".join("".join(cast(Iterator[str], element.itertext())).split())


# ---- chatterbot-corpus: YAML --------------------------------------------------------------------------------------


def _small_talk(root: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for path in sorted((root / "data").rglob("*.yml")):
        for lines in yaml.load(path.read_text("utf-8"), loader).get("conversations") or []:
            # An unanswered last line is cut; what is no text (YAML reads `yes` as true) is dropped by `dialogues`.
            yield path.parent.name, _turns(lines[: len(lines) // 2 * 2] or lines)


def _turns(texts: list[Any]) -> list[dict[str, Any]]:
    return [{"role": role, "content": text} for role, text in zip(cycle(("user", "assistant")), texts, strict=False)]


READERS = {"perl-doc": _perl_faq, "gnome-user-docs": _how_to, "chatterbot-corpus": _small_talk}
"""Package -> its conversations as (language, messages)."""
