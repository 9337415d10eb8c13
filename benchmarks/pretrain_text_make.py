"""Makes the text of pretrain_text.py from folders of text files: shards, held-out documents, tokenizer, one archive.

python -m benchmarks.pretrain_text_make --out out/text FOLDER[:MEGABYTES]...

Any text will do, of 40 megabytes or more; MEGABYTES is the most that is taken of a folder. Plain and gzipped files with
the endings of ENDINGS are read. The project's own stages make tokenizer and shards of it. On Debian, for example,
`apt-get download perl-doc git-doc vim-runtime linux-source-6.1 dict-gcide` and `dpkg-deb -x` give enough.
"""

import argparse
import gzip
import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_curation.artifact import Artifact, Part
from data_curation.documents import DOCUMENTS
from data_curation.files import File, sha256_file
from data_curation.place import Place, Resources, parts_of
from data_curation.shard import ShardConfig, shard
from data_curation.tokenizer import TokenizerConfig, tokenizer

ENDINGS = {"txt", "rst", "md", "pod", "c", "py", "data", "dict", *(str(number) for number in range(1, 9))}
"""Of files that are read, `.gz` and `.dz` not counted; numbers are manual pages."""
LEAST, MOST = 300, 12_000
"""Characters of a document; longer ones are cut at empty lines."""
HELD_OUT = 0.02
"""Share of the documents."""


def main() -> None:
    """Make the folder and its archive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="FOLDER[:MEGABYTES]")
    parser.add_argument("--out", type=Path, required=True, help="is made anew")
    parser.add_argument("--vocabulary", type=int, default=32768)
    asked = parser.parse_args()
    shutil.rmtree(asked.out, ignore_errors=True)
    work = asked.out / "work"
    made = _stages(_documents(asked, work), asked.vocabulary, work)
    for part, artifact in (("tokenizer", made[0]), ("shards", made[1]), ("heldout", made[1])):
        shutil.copytree(artifact.uri(part), asked.out / part)
    shutil.rmtree(work)
    parts = ("tokenizer", "shards", "heldout")
    subprocess.run(["tar", "--sort=name", "-cJf", "text.tar.xz", *parts], cwd=asked.out, check=True)
    print(f"{asked.out}/text.tar.xz: {(asked.out / 'text.tar.xz').stat().st_size / 1e6:.1f} MB")


def _documents(asked: argparse.Namespace, work: Path) -> Artifact:
    """The documents as an artifact: each text once, in the order of its hash."""
    found: dict[str, dict[str, Any]] = {}
    for name in asked.folders:
        folder, _, most = name.partition(":")
        texts = (text for path in Path(folder).rglob("*") if path.is_file() for text in pieces(read(path)))
        mine = {key: text for text in texts if (key := _key(text)) not in found}
        left = float(most or "inf") * 1e6
        for key in sorted(mine):
            left -= len(mine[key].encode())
            if left > 0:
                found[key] = _row(key, mine[key], Path(folder).name)
    rows = [found[key] for key in sorted(found)]
    print(f"{len(rows)} documents, {sum(len(row['text'].encode()) for row in rows) / 1e6:.1f} MB")
    path = work / "documents" / "documents" / "00000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, DOCUMENTS), path)
    file = File(path.name, path.stat().st_size, sha256_file(str(path)))
    return Artifact("documents", str(work / "documents"), {"documents": Part((file,))}, key="documents")


def read(path: Path) -> str:
    """The text of a file; nothing where it is none."""
    name = path.name.removesuffix(".gz").replace(".dz", "")
    if path.is_symlink() or name.rpartition(".")[2] not in ENDINGS:
        return ""
    raw = path.read_bytes()
    if path.suffix in (".gz", ".dz"):
        raw = gzip.decompress(raw)
    if b"\0" in raw:
        return ""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def pieces(text: str) -> Iterator[str]:
    """Documents of LEAST to about MOST characters, of which most are letters and spaces."""
    part = ""
    for block in text.replace("\r\n", "\n").split("\n\n"):
        if part and len(part) + len(block) > MOST:
            yield from _fit(part)
            part = ""
        part += block + "\n\n"
    yield from _fit(part)


def _fit(text: str) -> Iterator[str]:
    text = text.strip()
    if LEAST <= len(text) <= 4 * MOST:
        plain = sum(text.count(sign) for sign in " \netaoinsrhldcu")
        if plain > 0.5 * len(text):  # of English text about 0.75; tables of numbers and other scripts have less
            yield text


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _row(key: str, text: str, source: str) -> dict[str, Any]:
    empty = dict.fromkeys(DOCUMENTS.names, "") | {"language_score": None, "quality": None}
    return empty | {"id": key, "text": text, "url": key, "source": source, "language": "en"}


def _stages(documents: Artifact, vocabulary: int, work: Path) -> tuple[Artifact, Artifact]:
    """What the stages `tokenizer` and `shard` publish."""
    words = _run(work, "tokenizer", lambda place: tokenizer(TokenizerConfig(vocab_size=vocabulary), documents, place))
    config = ShardConfig(heldout_fraction=HELD_OUT)
    return words, _run(work, "shard", lambda place: shard(config, [documents], words, place))


def _run(work: Path, name: str, stage: Any) -> Artifact:
    place = Place(str(work / name / "out"), work / name / "scratch", Resources(), name)
    place.scratch.mkdir(parents=True)
    counts = stage(place)
    print(name, counts.taken, counts.made, counts.warnings)
    return Artifact(name, place.home, parts_of(place.pieces()), key=name)


if __name__ == "__main__":
    main()
