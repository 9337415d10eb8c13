"""Guarantees of an increment: only what is new is added, the tokenizer stays, and what was made stays cached."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from data_curation.shards import Shards
from tasks.store import Store
from tests.data_curation.places import rows
from tests.flows.crawls import preset, url
from tests.flows.test_road import digests, states, tokenmill

AFTER = ["--set", "increment.after=newest", "--set", "pretrain.phases.0.tokens=5120"]


def crawl(home: Path, pages: range, *words: str) -> dict[str, Any]:
    """Run the road as far as the shards over these pages, in the one store of `home`."""
    shutil.rmtree(home / "pages", ignore_errors=True)
    code, summary, said = tokenmill("run", preset(home, pages), "--until", "shard", *words)
    assert code == 0, said
    return summary


def stage(summary: dict[str, Any], name: str) -> dict[str, Any]:
    """One stage of a run."""
    return next(one for one in summary["stages"] if one["name"] == name)


def urls(home: Path, summary: dict[str, Any], name: str) -> set[str]:
    """URLs of the documents that a stage let through."""
    entry = stage(summary, name)
    manifest = Store(str(home / "store")).manifest(entry["stage"], entry["key"], entry["attempt"])
    return {row["url"] for row in rows(manifest.artifact("made", entry["uri"]))}


@pytest.mark.usefixtures("prefect_api")
def test_crawls_add_up(tmp_path: Path) -> None:
    """The second crawl adds its new pages alone, on the first one's documents, index and tokenizer, which stay cached.

    With the same sources again it is repeated, and a third crawl goes on from both.
    """
    first = crawl(tmp_path, range(30), *AFTER)  # nothing to go on from: a run as any other
    assert set(states(first).values()) == {"made"}
    second = crawl(tmp_path, range(20, 45), *AFTER)
    assert urls(tmp_path, second, "dedup") == {url(number) for number in range(30, 45)}
    assert (
        states(second)["tokenizer"] == "cached"
        and stage(second, "tokenizer")["key"] == stage(first, "tokenizer")["key"]
    )
    pinned = f"decontaminate-{stage(first, 'decontaminate')['key'][:8]}"
    assert states(second)[pinned] == "cached" and digests(second)[pinned] == digests(first)["decontaminate"]
    shards, both = (Shards(Path(stage(one, "shard")["uri"]) / "shards") for one in (first, second))
    held = [len(Shards(Path(stage(one, "shard")["uri"]) / "heldout")) for one in (first, second)]
    assert len(both) + held[1] == len(shards) + held[0] + 15
    assert both.index.tokenizer == shards.index.tokenizer
    again = crawl(tmp_path, range(20, 45), *AFTER)
    assert set(states(again).values()) == {"cached"} and digests(again) == digests(second)
    third = crawl(tmp_path, range(40, 50), *AFTER)
    assert urls(tmp_path, third, "dedup") == {url(number) for number in range(45, 50)}
    entry = Store(str(tmp_path / "store")).read_run(third["run"])
    pins = entry["config"]["increment"]
    assert [one["index"] for one in pins["earlier"]] == [stage(one, "dedup")["key"] for one in (first, second)]
    assert pins["tokenizer"] == stage(first, "tokenizer")["key"]
    _, graph, _ = tokenmill("trace", third["run"], "--store", tmp_path / "store")
    read = next(one["inputs"] for one in graph["artifacts"] if one["stage"] == "shard")
    assert [one["argument"] for one in read] == ["documents"] * 3 + ["tokenizer"]
    # What runs pinned is what they reach: nothing of it may be pruned.
    code, pruned, _ = tokenmill("prune", "--keep", "1", "--store", tmp_path / "store")
    kept = {stage(first, word)["uri"] for word in ("dedup", "decontaminate", "tokenizer")}
    assert code == 0 and kept.isdisjoint(one["uri"] for one in pruned["would_remove"])


@pytest.mark.usefixtures("prefect_api")
def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    """A run that is unknown or came not far enough, and a key without an artifact, are wrong configurations."""
    config = preset(tmp_path, range(10))
    code, summary, said = tokenmill("run", config, "--until", "extract")
    assert code == 0, said
    for settings, words in (
        ("increment.after=nobody", "run 'nobody' is not in"),
        (f"increment.after={summary['run']}", "that run finished no dedup: name another one"),
        ("increment.earlier=[{documents: a, index: b}]", "increment.earlier[0].index is 'b': no dedup of this key"),
    ):
        code, _, said = tokenmill("run", config, "--until", "shard", "--set", settings)
        assert code == 2 and words in said


@pytest.mark.usefixtures("prefect_api")
def test_earlier_documents_that_were_taken_down_are_refused(tmp_path: Path) -> None:
    """An earlier crawl that still holds a blocked page is no base for a new one: the message says what to do."""
    crawl(tmp_path, range(10), *AFTER)
    (tmp_path / "urls.txt").write_text(url(3))
    config, words = tmp_path / "small.yaml", ["--until", "dedup", "--set", "pretrain.phases.0.tokens=5120"]
    code, _, said = tokenmill("takedown", tmp_path / "urls.txt", config, "--apply", *words)
    assert code == 0, said
    preset(tmp_path, range(20))
    code, _, said = tokenmill("run", config, "--until", "shard", *AFTER)
    assert code == 2 and "1 of its documents were taken down since: run that crawl again in this store" in said
