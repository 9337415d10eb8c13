"""Decontamination on real pages: CPU cost, recall by share of edited words, false finds; datatrove's filter beside.

python -m benchmarks.decontaminate --pages DIR [--labelled DIR] [--limit N] [--json] [--save]

DIR holds WARC files. Every twentieth page is held out: its paragraphs are the
evaluation set `pages`, the questions of chatterbot-corpus the set `questions`, the paragraphs of labelled articles the
set `articles`; these have nothing to do with the pages, so what is found of them is false. CPU seconds of one process.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.decontaminate_recall import peer, recall
from benchmarks.measure import finish, options, pin, row, seconds
from benchmarks.pages import files_of, pages_of, texts_of
from data_curation.artifact import Artifact, Part
from data_curation.decontaminate import DecontaminateConfig, decontaminate
from data_curation.documents import DOCUMENTS, write_table
from data_curation.grams import words
from data_curation.place import Piece, Place, Resources, parts_of
from data_curation.sources.listing import resolve
from data_curation.sources.source import Source

NOTE = """
CPU seconds of one core. Every twentieth page is held out and makes the set `pages`; the sets `questions` and `articles`
have nothing to do with the pages. The other side is datatrove's 12-gram filter with an index of the same texts.
"""
GOAL = 2000
"""Documents per CPU second, near matching included."""
HELD_OUT = 20
PEER = 400
"""Pages that the peer reads: it takes 20 ms each."""
PER_FILE = 500


def main() -> int:
    """Print one line per figure; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pages", type=Path, required=True, help="folder of WARC files")
    parser.add_argument("--labelled", type=Path, help="folder with ground-truth.json of articles")
    parser.add_argument("--limit", type=int, default=20_000, help="pages at most")
    parser.add_argument("--anchors", type=int, default=5_000_000, help="anchors of the large index")
    options(parser)
    asked = parser.parse_args()
    pin()
    with tempfile.TemporaryDirectory() as home:
        result = measure(Path(home), asked)
    return finish("decontaminate", "finding evaluation texts in documents", NOTE, result, asked)


def measure(home: Path, args: argparse.Namespace) -> dict[str, Any]:
    """All rows."""
    texts = [text for _, text in texts_of(pages_of(files_of(args.pages), args.limit))]
    held = [text for number, text in enumerate(texts) if number % HELD_OUT == 0]
    corpus = [text for number, text in enumerate(texts) if number % HELD_OUT]
    sets = evaluation_sets(held, args.labelled)
    rows: list[dict[str, Any]] = []
    for name in ("unrelated", "all"):
        some = {key: value for key, value in sets.items() if name == "all" or key != "pages"}
        spent, report, place, config = run(home / name, corpus, some)
        goal = GOAL if name == "unrelated" else None  # of the other pages a sixth holds a paragraph of the set
        rows.append(row(f"stage, {name} sets", len(corpus) / spent, None, "documents/s", goal))
        rows += [found(key, value) for key, value in report["sets"].items() if name == "all"]
    spent, _, _, _ = run(home / "quarter", corpus[: len(corpus) // 4], sets)
    rows.append(row("stage, all sets, a quarter of the pages", len(corpus) / 4 / spent, None, "documents/s", None))
    theirs, ours, hosts = peer(sets), matcher(place, config), corpus[:PEER]
    speeds = [PEER / seconds(partial(list, map(look, hosts))) for look in (ours.suspects, theirs)]
    rows.append(row("one page after another", speeds[0], speeds[1], "documents/s", None))

    def finds(text: str) -> bool:
        return any(find.kind != "common" for find in ours.finds(words(text)))

    rows += recall(sets, hosts, finds, theirs)
    rows += large_index(home / "large", corpus, args.anchors)
    return {"rows": rows, "agreement": {}, "documents": len(corpus), "texts": {key: len(sets[key]) for key in sets}}


def found(name: str, report: dict[str, Any]) -> dict[str, Any]:
    """Documents with finds of a set, its canaries and decoys."""
    line = row(f"documents with finds of {name}", report["documents"], None, "documents", None)
    return line | {key: report[key] for key in ("texts", "finds", "kinds", "precision", "recall", "false_finds")}


# ---- what is read ----------------------------------------------------------------------------------------------------


def evaluation_sets(held: Sequence[str], labelled: Path | None) -> dict[str, list[dict[str, str]]]:
    """Records of the sets: paragraphs of held-out pages, questions with answers, paragraphs of articles."""
    import chatterbot_corpus
    import yaml

    paragraphs = [one for text in held for one in text.split("\n\n") if 13 <= len(words(one)) <= 80]
    random.Random(0).shuffle(paragraphs)
    sets: dict[str, list[dict[str, str]]] = {"pages": [{"text": one} for one in paragraphs[:3000]], "questions": []}
    folder = Path(str(chatterbot_corpus.__file__)).parent / "data" / "english"
    for path in sorted(folder.glob("*.yml")):
        talks: list[list[Any]] = yaml.safe_load(path.read_text())["conversations"]
        sets["questions"] += [{"question": str(one[0]), "answer": str(one[1])} for one in talks if len(one) > 1]
    if labelled:
        articles = json.loads((labelled / "ground-truth.json").read_text()).values()
        lines = [line for one in articles for line in one["articleBody"].split("\n") if len(words(line)) >= 6]
        sets["articles"] = [{"text": line} for line in lines]
    return sets


# ---- the stage -------------------------------------------------------------------------------------------------------


def run(
    home: Path, corpus: Sequence[str], sets: dict[str, list[dict[str, str]]]
) -> tuple[float, dict[str, Any], Place, DecontaminateConfig]:
    """The stage on these documents: its CPU seconds, its report, where it worked."""
    sources: list[Source] = []
    for name, records in sets.items():
        (home / "sets" / name).mkdir(parents=True)
        (home / "sets" / name / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
        sources.append(Source(name=name, kind="jsonl", path=str(home / "sets" / name)))
    listed = [resolve(source, home / "sources")[0] for source in sources]
    (home / "scratch").mkdir()
    resources = Resources(workers=1, log_seconds=1e9)
    given = Place(str(home / "given"), home / "scratch", resources)
    empty = dict.fromkeys(DOCUMENTS.names, "") | {"language_score": None, "quality": None, "source": "web"}
    rows = [{**empty, "id": f"{number:08d}", "text": text} for number, text in enumerate(corpus)]
    for start in range(0, len(rows), PER_FILE):
        with given.piece(f"{start:08d}") as piece:
            write_table(piece, "documents", f"{start:08d}.parquet", rows[start : start + PER_FILE], DOCUMENTS)
    documents = Artifact("documents", given.home, parts_of(given.pieces()), key="documents")
    nothing = Artifact("dialogues", str(home), {"dev": Part(()), "test": Part(())})
    place, config = Place(str(home / "made"), home / "scratch", resources), DecontaminateConfig(evaluations=sources)
    spent = seconds(lambda: decontaminate(config, documents, nothing, place, listed))
    made = Artifact("made", place.home, parts_of(place.pieces()), key="made")
    return spent, made.read_json("audit", "sets.json"), place, config


def matcher(place: Place, config: DecontaminateConfig) -> Any:
    """The matcher that a finished stage used."""
    from data_curation.evaluation_index import load, read_array
    from data_curation.evaluation_items import PART
    from data_curation.matching import Matcher

    items, anchors = place.done("items"), place.done("anchors")
    assert items and anchors
    index = load(place, items, PART, config.anchor)
    return Matcher(config, index, read_array(place.folder(anchors, "work/anchors"), "documents"))


# ---- a large index ---------------------------------------------------------------------------------------------------


def large_index(home: Path, corpus: Sequence[str], anchors: int) -> Iterator[dict[str, Any]]:
    """An index of words drawn from the pages: its bytes, and how fast documents are looked up in it."""
    from data_curation.evaluation_index import gram_hashes, load, text_hashes, write_index
    from data_curation.evaluation_items import ITEMS, PART

    pool = [word for text in corpus[:PEER] for word in words(text)]
    draw = random.Random(0)
    texts = [" ".join(draw.choices(pool, k=64)) for _ in range(anchors // 60)]
    place = Place(str(home), home, Resources(workers=1, log_seconds=1e9))
    with place.piece("items") as piece:
        owner = {"sets": ["set"], "names": ["name"], "records": ["record"]}
        write_table(piece, PART, "items.parquet", ({"text": text, **owner} for text in texts), ITEMS)
        spent = seconds(lambda: write_index(piece, PART, texts, 5))
    items: Piece = piece.piece
    index = load(place, items, PART, 5)

    def look() -> None:
        for start in range(0, len(corpus), 200):
            batch = [text_hashes(text) for text in corpus[start : start + 200]]
            index.lookup(gram_hashes(batch, 5).hashes)

    millions = items.note["anchors"]["number"] / 1e6
    yield row("index, bytes per anchor", items.note["anchors"]["bytes"] / millions / 1e6, None, "bytes", None)
    yield row("index, making", millions * 1e6 / spent, None, "anchors/s", None)
    yield row(f"look-up in {millions:.1f} M anchors", len(corpus) / seconds(look), None, "documents/s", GOAL)


if __name__ == "__main__":
    raise SystemExit(main())
