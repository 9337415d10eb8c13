"""The texts of evaluation sets, from held-out dialogues and from files of any fields, as items to look for."""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple, cast

import pyarrow as pa
import xxhash

from data_curation.artifact import Artifact
from data_curation.canaries import chosen
from data_curation.decontaminate import DecontaminateConfig, ItemFields
from data_curation.documents import read_rows, write_table
from data_curation.evaluation_index import word_hashes, write_index
from data_curation.grams import placed_words, words
from data_curation.place import PieceWriter
from data_curation.settings import InputError

PART = "work/items"
ITEMS = pa.schema(
    [
        ("text", pa.string()),
        ("sets", pa.list_(pa.string())),
        ("names", pa.list_(pa.string())),  # what the text is called in each of the sets
        ("records", pa.list_(pa.string())),  # all records that have the text, each as its set and name
    ]
)
GLUE = ("", "Answer:", "A:")
"""What stands between a question and its answer where people write them down together."""
SHARE = 300
"""Words of the longest text that is looked for in one piece; what comparing it costs grows with their square."""


class Text(NamedTuple):
    """One text of an evaluation record: a name within its set, and the partner that it may be too short without."""

    set: str
    record: str
    name: str
    text: str
    answer: str = ""
    answer_name: str = ""


def write_items(
    config: DecontaminateConfig, dialogues: Artifact, evaluations: list[Artifact], piece: PieceWriter
) -> None:
    """Write all evaluation texts long enough to look for and their index; the note counts texts per set.

    Equal texts are one item, of all the sets that have it; the first name in a set stands for the others.
    """
    sets: dict[str, dict[str, int]] = {}
    kept: dict[bytes, tuple[str, dict[str, str], set[str]]] = {}
    for one in [*_from_dialogues(dialogues), *_from_sources(config, evaluations)]:
        numbers = sets.setdefault(one.set, {"texts": 0, "too_short": 0})
        for name, text in _items(config, one, numbers):
            key = xxhash.xxh3_128_digest(word_hashes(words(text)))
            _, owners, records = kept.setdefault(key, (text, {}, set()))
            owners.setdefault(one.set, name)
            records.add(f"{one.set} {one.record}")
    rows: list[dict[str, Any]] = [
        {"text": text, "sets": names, "names": [owners[name] for name in names], "records": sorted(records)}
        for text, owners, records in sorted(kept.values(), key=lambda one: one[0])
        if (names := sorted(owners))
    ]
    write_table(piece, PART, "items.parquet", rows, ITEMS)
    write_index(piece, PART, [row["text"] for row in rows], config.anchor)
    piece.piece.note["sets"] = sets
    piece.piece.note["canaries"] = chosen(config, rows)


def _items(config: DecontaminateConfig, one: Text, numbers: dict[str, int]) -> Iterator[tuple[str, str]]:
    """The texts to look for: each that is long enough for itself, and where both are short, the two together."""
    pair = [(one.name, one.text), *([(one.answer_name, one.answer)] if one.answer else [])]
    lengths = [len(words(text)) for _, text in pair]
    together = len(pair) == 2 and min(lengths) > 0 and max(lengths) < config.ngram
    together = together and sum(lengths) >= config.short_words
    alone = any(length >= config.ngram for length in lengths)  # such a partner is found by itself
    numbers["texts"] += len(pair)
    numbers["too_short"] += 0 if together or alone else sum(length < config.short_words for length in lengths)
    for (name, text), length in zip(pair, lengths, strict=True):
        if length >= config.short_words:
            yield from _shares(name, text, length)
    if together:
        both = f"{one.name}+{one.answer_name.rsplit('/', 1)[-1]}"
        # Where one of them has an anchor, words between the two are no hindrance.
        for glue in GLUE if max(lengths) < config.anchor else GLUE[:1]:
            yield both, "\n".join(filter(None, (one.text, glue, one.answer)))


def _shares(name: str, text: str, length: int) -> Iterator[tuple[str, str]]:
    """A long text in equal shares of at most `SHARE` words: a page may hold some of a book, and none holds all."""
    if length <= SHARE:
        yield name, text
        return
    _, places = placed_words(text)
    number = -(-length // SHARE)
    ends = [len(places) * share // number for share in range(number + 1)]
    for share, (first, last) in enumerate(pairwise(ends)):
        yield f"{name}[{share}]", text[places[first][0] : places[last - 1][1]]


# ---- where texts come from ------------------------------------------------------------------------------------------


def _from_dialogues(dialogues: Artifact) -> Iterator[Text]:
    """Each message of a user with the reply to it; messages without one for themselves."""
    held = [part for part in sorted(dialogues.parts) if part.split("-")[0] in ("dev", "test")]
    for part in held:
        for uri in dialogues.uris(part, ".parquet"):
            for row in read_rows(uri):
                yield from _turns(f"dialogues-{part}-{row['source']}", str(row["id"]), row["messages"])


def _turns(name: str, record: str, messages: list[dict[str, str]]) -> Iterator[Text]:
    said = [(number, one["role"], one["content"]) for number, one in enumerate(messages)]
    said = [one for one in said if one[1] in ("user", "assistant")]
    while said:
        number, role, content = said.pop(0)
        if role == "user" and said and said[0][1] == "assistant":
            reply, _, answer = said.pop(0)
            yield Text(name, record, f"{record}/{number}", content, answer, f"{record}/{reply}")
        else:
            yield Text(name, record, f"{record}/{number}", content)


def _from_sources(config: DecontaminateConfig, evaluations: list[Artifact]) -> Iterator[Text]:
    from data_curation.html_text import extract_html
    from data_curation.sources.listing import uri_of

    for source, listed in zip(config.evaluations, evaluations, strict=True):
        fields = config.set_fields.get(source.name, config.fields)
        for file in listed.part("files").files:
            uri = uri_of(source, listed, file.path)
            if source.kind == "html":
                text = extract_html(_bytes(uri), file.path).text
                yield Text(source.name, f"{file.path}#0", f"{file.path}#0", text)
                continue
            for number, record in enumerate(_jsonl(uri) if source.kind == "jsonl" else read_rows(uri)):
                found = list(_texts(fields, record, source.name, f"{file.path}#{number}"))
                if not found:
                    raise InputError(
                        f"{source.name}: {file.path}: record {number} has none of the fields that hold its text:"
                        f" name those of {', '.join(sorted(record))} in decontaminate.set_fields.{source.name}"
                    )
                yield from found


def _bytes(uri: str) -> bytes:
    from data_curation.files import filesystem
    from data_curation.records import blocks

    fs, path = filesystem(uri)
    with fs.open(path, "rb") as stream:
        return b"".join(blocks(stream, uri))


def _jsonl(uri: str) -> Iterator[dict[str, Any]]:
    lines = _bytes(uri).split(b"\n")
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line.decode())
            except ValueError as error:
                raise InputError(f"{uri}: line {number} is not JSON in UTF-8: {error}; correct or remove it") from None
            if not isinstance(row, dict):
                raise InputError(f"{uri}: line {number} is no JSON object; each record must be one")
            yield cast(dict[str, Any], row)


def _texts(fields: ItemFields, record: dict[str, Any], name: str, where: str) -> Iterator[Text]:
    """The texts of one record; its choices belong to the question, a number or a letter names one of them."""
    for field in fields.text:
        if text := "\n".join(_strings(record.get(field))):
            yield Text(name, where, where if field == "text" else f"{where}/{field}", text)
    question = _first(record, fields.question)
    answer = _first(record, fields.answer)
    choices = _first(record, fields.choices)
    asked = "\n".join(_strings(question[1]))
    if not asked:
        return
    listed = _strings(choices[1])
    answers = [_choice(answer[1], choices[1], listed)] if listed else _strings(answer[1])
    yield Text(name, where, f"{where}/{question[0]}", asked, answers[0] if answers else "", f"{where}/{answer[0]}")
    if listed:
        yield Text(name, where, f"{where}/{question[0]}+{choices[0]}", "\n".join([asked, *listed]))


def _first(record: dict[str, Any], names: list[str]) -> tuple[str, Any]:
    return next(((name, record[name]) for name in names if record.get(name) not in (None, "", [])), ("", None))


def _strings(value: Any) -> list[str]:
    """The strings in a field: itself, those of a list, or those under `text` (SQuAD's answers, ARC's choices)."""
    if isinstance(value, str):
        return [value] if value.strip() else []
    if isinstance(value, dict):
        return _strings(cast(dict[str, Any], value).get("text"))
    if isinstance(value, list):
        return [text for one in cast(list[Any], value) for text in _strings(one)]
    return [] if value is None or isinstance(value, bool) else [str(value)]


def _choice(answer: Any, choices: Any, listed: list[str]) -> str:
    """The choice that is right, given as its number, its letter, its label, or in words."""
    labels = [str(one) for one in choices.get("label", [])] if isinstance(choices, dict) else []
    labels = labels or [chr(ord("A") + number) for number in range(len(listed))]
    if str(answer).strip() in labels[: len(listed)]:
        return listed[labels.index(str(answer).strip())]
    if str(answer).isdecimal() and int(answer) < len(listed):
        return listed[int(answer)]
    return answer if isinstance(answer, str) else ""
