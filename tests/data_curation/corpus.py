"""Generated documents in two made-up languages for the tests of tokens."""

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from data_curation.artifact import Artifact, Part
from data_curation.documents import DOCUMENTS
from data_curation.files import File, sha256_file
from data_curation.place import Place, Resources

LATIN = ["ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe"]
SYLLABLES = {"xa": LATIN, "xb": ["".join(chr(ord(letter) + 0x3CF) for letter in syllable) for syllable in LATIN]}


def rows(number: int, words: int = 40) -> list[dict[str, Any]]:
    """Documents of 1 to 2 * `words` words with numbers, tabs and line ends; the third of them is in Cyrillic."""
    found: list[dict[str, Any]] = []
    for index in range(number):
        chance = random.Random(index)
        language = "xb" if index % 3 == 0 else "xa"
        text = " ".join(_word(chance, language) for _ in range(chance.randint(1, 2 * words)))
        found.append(row(f"document {index}", text, language=language, source=f"source {index % 2}"))
    return found


def row(url: str, text: str, language: str = "xa", source: str = "source 0") -> dict[str, Any]:
    """One document; its id follows from the URL."""
    return {
        **dict.fromkeys(DOCUMENTS.names, ""),
        **{"id": xxhash.xxh3_128_hexdigest(url), "text": text, "url": url, "source": source, "language": language},
        "language_score": 1.0,
        "quality": None,
    }


def documents(home: Path, some: list[dict[str, Any]], files: int = 3) -> Artifact:
    """An artifact with part `documents` that spreads the rows over a number of files."""
    folder = home / "documents"
    folder.mkdir(parents=True)
    for index in range(files):
        pq.write_table(pa.Table.from_pylist(some[index::files], DOCUMENTS), folder / f"{index:05d}.parquet")
    return artifact("documents", home)


def artifact(name: str, home: Path) -> Artifact:
    """The folders below `home` as the parts of an artifact."""
    parts: dict[str, Part] = {}
    for folder in sorted(path for path in home.iterdir() if path.is_dir()):
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        files = [
            File(path.relative_to(folder).as_posix(), path.stat().st_size, sha256_file(str(path))) for path in paths
        ]
        parts[folder.name] = Part(tuple(files))
    return Artifact(name, str(home), parts, key=name)


def new_place(home: Path, workers: int = 1) -> Place:
    """A place below `home`."""
    (home / "scratch").mkdir(parents=True)
    return Place(str(home / "out"), home / "scratch", Resources(workers=workers, log_seconds=1e9))


def _word(chance: random.Random, language: str) -> str:
    word = "".join(chance.choices(SYLLABLES[language], weights=range(1, 13), k=chance.randint(1, 3)))
    return chance.choice([word] * 12 + [f"{word}.\n\n{word}", f"\t{word}", str(chance.randint(0, 99999)), f"{word}'s"])
