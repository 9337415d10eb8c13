"""Guarantees of `tokenmill whatif`: it answers what a run with those settings decides, or says why it cannot."""

import json
import random
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_curation.clean import clean
from data_curation.settings import ConfigError, InputError
from data_curation.sources.listing import resolve
from flows.cli import main
from flows.config import PipelineConfig, load
from flows.whatif import answer_of
from tasks.store import Store
from tests.data_curation import places
from tests.data_curation.prose import paragraphs, sentence, text
from tests.flows.test_road import tokenmill

ROUNDS = 12
"""Random choices of thresholds that are asked and run."""
THRESHOLDS: dict[str, list[Any]] = {
    "languages.0.score": [0.2, 0.95, 0.999],
    "urls": ["null"],
    "repetition.duplicate_lines": [0, 0.05, 0.6],
    "repetition.top_2_gram": [0.02, 0.05, 0.9],
    "repetition.duplicate_5_grams": [0, 0.01, 0.9],
    "repetition": ["null"],
    "gopher.min_words": [5, 80, 150],
    "gopher.max_bullet_lines": [0.05, 0.3],
    "gopher.min_stop_words": [0, 5],
    "gopher": ["null"],
    "lines.max_removed": [0.0, 0.5],
    "c4.min_sentences": [0, 12],
    "fineweb.max_repeated_lines": [0, 0.2],
    "fineweb.min_punctuated_lines": [0.05, 0.9],
    "fineweb": ["null"],
    "quality.min_score": ["null", 0.3, 0.9],
    "quality": ["null"],
}


def texts() -> list[str]:
    """Good and bad documents, each threshold near some of them."""
    made = [text(number, ("en", "de", "en", "sv")[number % 4], count=1 + number % 5) for number in range(40)]
    made += ["\n\n".join([*paragraphs(start, count=start), *paragraphs(1, count=start // 2)]) for start in range(1, 9)]
    made += [
        f"{text(20 + many)}\n" + "\n".join(f"- item {row} of it" for row in range(many)) for many in (3, 9, 30, 200)
    ]
    made += [text(60 + many).replace(".", ",", many * 3) for many in range(7)]
    made += ["\n".join(sentence(row)[:-1] for row in range(many)) for many in (3, 8, 20)]
    made += [f"{text(80 + many, count=3)}\n" + "\n".join(["READ MORE OF IT"] * many) for many in (1, 3, 9)]
    made += [f"{text(90)}\nLorem ipsum dolor sit amet.", f"{text(91)}\nand {{ so }} on and on", text(1) + text(2, "de")]
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> tuple[Path, PipelineConfig]:
    """A run up to `clean` that kept full scores: its preset, and the settings."""
    home = tmp_path_factory.mktemp("whatif")
    folders = {"web": texts(), "good": [text(number) for number in range(500, 600)]}
    folders["spam"] = [text(number).replace(". ", ". Click now and win! ", 4) for number in range(600, 700)]
    for name, some in folders.items():
        (home / name).mkdir()
        lines = [
            json.dumps({"text": one, "url": f"https://{name}{at % 3}.example/{at}"}) for at, one in enumerate(some)
        ]
        (home / name / "all.jsonl").write_text("\n".join(lines))
    (home / "blocked.txt").write_text("web2.example/5\nweb1.example/1\nweb0.example/6\n")
    sources = {name: {"name": name, "kind": "jsonl", "path": str(home / name)} for name in folders}
    config = {
        "dialogues": {"tasks": {"train": 30, "dev": 10, "test": 10}},
        "extract": {"sources": [sources["web"]]},
        "clean": {
            "languages": [{"code": "en", "stop_words": ["the", "of", "and", "that", "to"]}, {"code": "de"}],
            "urls": {"block_list": str(home / "blocked.txt")},
            "lines": {},
            "quality": {"positive": [sources["good"]], "negative": [sources["spam"]], "min_score": 0.5, "heldout": 0.3},
            "decisions": "full",
        },
        "run": {
            **{name: str(home / name) for name in ("store", "export", "home", "sources")},
            "resources": {"workers": 1},
        },
    }
    path = home / "preset.yaml"
    path.write_text(yaml.safe_dump(config))
    code, _, said = tokenmill("run", path, "--until", "clean")
    assert code == 0, said
    return path, load(str(path))


def store_of(made: tuple[Path, PipelineConfig]) -> Store:
    """The store of the run."""
    return Store(made[1].run.store)


def run_again(made: tuple[Path, PipelineConfig], sets: list[str], home: Path) -> dict[str, tuple[str, str]]:
    """Step and reason of every document by a real run of `clean` with the settings, without stored scores."""
    config = load(str(made[0]), [*sets, "clean.decisions=reasons"]).clean
    store = store_of(made)
    word, key, attempt = store.current("extract")[0]
    pages = store.manifest(word, key, attempt).artifact(word, store.uri(word, key, str(attempt)))
    listed = [
        [resolve(source, home / "sources")[0] for source in sources]
        for sources in ((config.quality.positive, config.quality.negative) if config.quality else ((), ()))
    ]
    where = places.place(home / "home", home / "scratch")
    with suppress(InputError):  # none is left: a failed stage, and its decisions are written all the same
        clean(config, pages, where, *listed)
    rows = places.rows(places.artifact(where), "decisions")
    return {row["id"]: (row["step"], row["reason"]) for row in rows}


@pytest.mark.parametrize("number", range(ROUNDS))
def test_the_answer_is_what_a_run_decides(made: tuple[Path, PipelineConfig], tmp_path: Path, number: int):
    """For thresholds drawn at random, counts by reason and the documents that change sides are those of a real run."""
    draw = random.Random(number)
    names = draw.sample(sorted(THRESHOLDS), 1 + number % 4)
    names = [name for name in names if not any(name != other and name.startswith(f"{other}.") for other in names)]
    sets = [f"clean.{name}={draw.choice(THRESHOLDS[name])}" for name in names]
    answer = answer_of(store_of(made), None, sets)
    now, then = run_again(made, [], tmp_path / "now"), run_again(made, sets, tmp_path / "then")
    kept = ("clean", "")
    assert answer["documents"] == len(now) == len(then) == len(texts())
    for name, decided in (("now", now), ("then", then)):
        counts = Counter(decided.values())
        assert answer[name] == {"kept": counts[kept], "dropped": len(decided) - counts[kept]}
        assert {(row["step"], row["reason"]): row[name] for row in answer["reasons"] if row[name]} == {
            reason: count for reason, count in counts.items() if reason != kept
        }
        assert sum(row[name] for row in answer["groups"]) == counts[kept]
    turned = {"kept": set[str](), "dropped": set[str]()}
    for document in now:
        if (now[document] == kept) != (then[document] == kept):
            turned["kept" if then[document] == kept else "dropped"].add(document)
    assert answer["turned"] == {side: len(found) for side, found in turned.items()}
    for side, examples in answer["examples"].items():
        assert {one["id"] for one in examples} == set(sorted(turned[side])[:10])


def test_thresholds_that_are_asked_matter(made: tuple[Path, PipelineConfig]):
    """The documents are such that most thresholds change something: the test above compares more than nothing."""
    moved = 0
    for name, values in THRESHOLDS.items():
        answers = [answer_of(store_of(made), None, [f"clean.{name}={value}"]) for value in values]
        moved += any(answer["now"] != answer["then"] for answer in answers)
    assert moved >= 12


def test_the_command_prints_both_forms(made: tuple[Path, PipelineConfig], capsys: pytest.CaptureFixture[str]):
    """A table for people, one JSON object as the last line for programs."""
    store = made[1].run.store
    assert main(["whatif", "clean.gopher.min_words=150", "--store", store]) == 0
    said = capsys.readouterr().out
    assert "gopher-short-doc" in said and "documents would be dropped instead" in said and "web" in said
    assert main(["whatif", "clean.gopher.min_words=150", "--store", store, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["then"]["dropped"] > answer["now"]["dropped"] and answer["stage"] == "clean"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("clean.gopher.min_word=80", r"^clean\.gopher\.min_word: no such setting: did you mean min_words\?"),
        ("dedup.bands=3", r"only settings of clean can be asked"),
        ("clean.c4.citations=false", r"^clean\.c4\.citations decides what is measured"),
        ("clean.fineweb.short_line=10", r"^clean\.fineweb\.short_line decides what is measured"),
        ("clean.quality.ngram=1", r"^clean\.quality\.ngram decides what is measured"),
        ("clean.c4=null", r"^clean\.c4 decides what is measured"),
        ("clean.normalise=false", r"^clean\.normalise decides what is measured"),
        ("clean.languages=[{code: en}]", r"^clean\.languages: only their scores can be asked"),
        ("clean.urls.words=[a]", r"^clean\.urls\.words decides what is measured"),
    ],
)
def test_what_scores_cannot_answer_is_refused(made: tuple[Path, PipelineConfig], setting: str, words: str):
    """A setting that is unknown, of another stage, or changes what is measured is refused by its path."""
    with pytest.raises(ConfigError, match=words):
        answer_of(store_of(made), None, [setting])


def test_a_run_without_scores_is_refused(made: tuple[Path, PipelineConfig], tmp_path: Path):
    """A run that kept reasons only, one that is not there and an empty store each say what to do."""
    store = store_of(made)
    known = store.read_run(store.runs()[0])
    known["config"]["clean"]["decisions"] = "reasons"
    Store(str(tmp_path)).write_run("quiet", "run.json", json.dumps(known).encode())
    with pytest.raises(ConfigError, match=r"^clean\.decisions is 'reasons' in run .*: run it with --set clean"):
        answer_of(Store(str(tmp_path)), None, ["clean.gopher.min_words=80"])
    with pytest.raises(ConfigError, match=r"run 'nobody' is not in"):
        answer_of(store_of(made), "nobody", ["clean.gopher.min_words=80"])
    with pytest.raises(ConfigError, match=r"^no run in .* has finished clean"):
        answer_of(Store(str(tmp_path / "empty")), None, ["clean.gopher.min_words=80"])
