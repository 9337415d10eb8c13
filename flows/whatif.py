"""What other thresholds of `clean` would keep and drop: judged again from a run's stored scores, nothing is run."""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from data_curation.clean import RULES, STEPS, CleanConfig
from data_curation.settings import ConfigError, InputError
from flows.config import PipelineConfig, lay
from flows.terminal import print_table

if TYPE_CHECKING:
    from data_curation.artifact import Artifact
    from tasks.store import Store

EXAMPLES = 10
"""Documents shown of those that change sides in each direction, the ones with the smallest ids."""
_KEPT = ("clean", "")
_WRITERS = ("lines", "c4")
"""Sections that take lines out: without them, later rules would have measured other texts."""
_COLUMNS = ["id", "url", "source", "language", "step", "reason", "scores"]


def whatif(store: "Store", asked: argparse.Namespace) -> int:
    """What other thresholds would keep and drop."""
    answer = answer_of(store, asked.run, asked.set)
    if asked.json:
        print(json.dumps(answer))
    else:
        _print(answer)
    return 0


def answer_of(store: "Store", run: str | None, sets: Sequence[str]) -> dict[str, Any]:
    """Kept and dropped now and then, by reason, by source and language, and the documents that change sides.

    ConfigError where the run kept no scores, or where a setting is unknown or decides what is measured.
    """
    name, entry, config = _cleaned(store, run)
    if config.clean.decisions != "full":
        raise ConfigError(
            f"clean.decisions is {config.clean.decisions!r} in run {name}, so it kept no scores: "
            "run it with --set clean.decisions=full first"
        )
    for text in sets:
        if not text.startswith("clean."):
            raise ConfigError(f"whatif {text!r}: only settings of clean can be asked, as clean.gopher.min_words=80")
    then = lay(config.model_dump(mode="json"), sets).clean
    check(config.clean, then)
    manifest = store.manifest("clean", entry["key"], entry["attempt"])
    made = manifest.artifact("clean", store.home("clean", entry["key"], entry["attempt"]))
    found = _Compared(then)
    for row in _decisions(made):
        found.add(row)
    return {"run": name, "stage": entry["name"], "set": list(sets), **found.summary()}


def check(now: CleanConfig, then: CleanConfig) -> None:
    """A ConfigError for the first change that stored scores cannot answer."""
    for name in CleanConfig.model_fields:
        before, after = getattr(now, name), getattr(then, name)
        if before == after:
            continue
        if name == "languages":
            _check_languages(now, then)
        elif name not in (*RULES, "quality", "urls"):
            raise _unanswerable(f"clean.{name}")
        elif before is None:
            raise ConfigError(
                f"clean.{name}: it was off in that run, so nothing was measured for it: run it with it on"
            )
        elif after is None and name in _WRITERS:
            raise _unanswerable(f"clean.{name}")
        elif after is not None:
            _check_fields(f"clean.{name}", before, after)


def _check_languages(now: CleanConfig, then: CleanConfig) -> None:
    before, after = ([one.model_dump(exclude={"score"}) for one in config.languages] for config in (now, then))
    if before != after:
        raise ConfigError(
            "clean.languages: only their scores can be asked, other languages or stop words were not measured: "
            "run it with them"
        )


def _check_fields(path: str, before: Any, after: Any) -> None:
    for name in sorted(type(before).MEASURES):
        if getattr(before, name) != getattr(after, name):
            raise _unanswerable(f"{path}.{name}")


def _unanswerable(path: str) -> ConfigError:
    return ConfigError(
        f"{path} decides what is measured or what is left of a text, so stored scores cannot answer: "
        f"run it with --set {path}=..."
    )


def _cleaned(store: "Store", run: str | None) -> tuple[str, dict[str, Any], PipelineConfig]:
    """The asked run, or the newest one, that finished `clean`: its name, its entry of the stage, its settings."""
    for name in [run] if run else store.runs():
        data = store.read_run(name)
        entry = next((one for one in data["stages"] if one["stage"] == "clean" and one["digest"]), None)
        if entry is not None:
            return name, entry, lay(data["config"], [])
    which = f"run {run!r}" if run else f"no run in {store.root}"
    raise ConfigError(f"{which} has {'not ' if run else ''}finished clean: `tokenmill runs` lists them")


def _decisions(made: "Artifact") -> Iterator[dict[str, Any]]:
    from data_curation.documents import read_rows

    for uri in made.uris("decisions", ".parquet"):
        try:
            yield from read_rows(uri, _COLUMNS)
        except FileNotFoundError:
            raise InputError(f"{uri}: is gone: make clean again (`tokenmill run ... --refresh clean`)") from None


@dataclass
class _Compared:
    """Sums over documents, as they were judged and as they would be."""

    config: CleanConfig
    now: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    then: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    groups: dict[tuple[str, str], Counter[str]] = field(default_factory=dict[tuple[str, str], Counter[str]])
    turned: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {"kept": [], "dropped": []})
    turns: Counter[str] = field(default_factory=Counter[str])

    def add(self, row: dict[str, Any]) -> None:
        """Judge one document again."""
        now, then = (row["step"], row["reason"]), self.config.judge(json.loads(row["scores"]))
        then = then if then[1] else _KEPT
        self.now[now] += 1
        self.then[then] += 1
        group = self.groups.setdefault((row["source"], row["language"]), Counter[str]())
        group.update({"documents": 1, "now": now == _KEPT, "then": then == _KEPT})
        if (now == _KEPT) == (then == _KEPT):
            return
        side = "kept" if then == _KEPT else "dropped"
        self.turns[side] += 1
        about = {name: row[name] for name in ("id", "url", "source", "language")}
        shown = [*self.turned[side], about | {"now": " ".join(now).strip(), "then": " ".join(then).strip()}]
        self.turned[side] = sorted(shown, key=lambda one: one["id"])[:EXAMPLES]

    def summary(self) -> dict[str, Any]:
        """The answer as plain data; `turned` are documents that were dropped and would be kept, and the other way."""
        total, order = self.now.total(), [*STEPS, "clean"]
        reasons = sorted({*self.now, *self.then} - {_KEPT}, key=lambda one: (order.index(one[0]), one[1]))
        return {
            "documents": total,
            "now": {"kept": self.now[_KEPT], "dropped": total - self.now[_KEPT]},
            "then": {"kept": self.then[_KEPT], "dropped": total - self.then[_KEPT]},
            "reasons": [
                {"step": one[0], "reason": one[1], "now": self.now[one], "then": self.then[one]} for one in reasons
            ],
            "groups": [
                {"source": source, "language": language, **self.groups[source, language]}
                for source, language in sorted(self.groups)
            ],
            "turned": {side: self.turns[side] for side in self.turned},
            "examples": self.turned,
        }


def _print(answer: dict[str, Any]) -> None:
    print(f"{answer['stage']} of run {answer['run']} with {', '.join(answer['set'])}")
    print_table(
        ["", "now", "then"],
        [[side, *(f"{answer[when][side]:,}" for when in ("now", "then"))] for side in ("kept", "dropped")],
    )
    print_table(
        ["dropped by", "for", "now", "then"],
        [[row["step"], row["reason"], f"{row['now']:,}", f"{row['then']:,}"] for row in answer["reasons"]],
    )
    print_table(
        ["source", "language", "documents", "kept now", "kept then"],
        [
            [row["source"], row["language"], *(f"{row[name]:,}" for name in ("documents", "now", "then"))]
            for row in answer["groups"]
        ],
    )
    for side, number in answer["turned"].items():
        print(f"{number:,} documents would be {side} instead")
        shown = [[one["url"] or one["id"], one["now"], one["then"]] for one in answer["examples"][side]]
        if shown:
            print_table(["document", "now", "then"], shown)
