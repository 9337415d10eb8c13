"""What stages say of themselves for the model card: of settings and inputs alone, and known only when all are done."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.artifact import Manifest
from tasks.facts import stage_facts
from tasks.run import Run, StageRecord, running
from tests.tasks.conftest import Road
from tests.tasks.toys import SeedConfig
from training.provenance import StageFacts
from training.publish import PublishConfig


def facts_of(run: Run) -> dict[str, StageFacts]:
    """What the stages of a run say."""
    with running(run):
        return stage_facts()


def rewritten(run: Run, name: str, **fields: Any) -> None:
    """Change fields of a stage's manifest, in the store and in the run."""
    record = next(one for one in run.stages if one.name == name)
    assert record.manifest is not None
    record.manifest = replace(record.manifest, **fields)
    Path(record.uri, "manifest.json").write_bytes(record.manifest.to_json())


def test_equal_runs_say_the_same_wherever_they_are(road: Road, tmp_path: Path):
    """Two stores, hours and runs: equal facts, so an equal key of `publish`; made or cached makes no difference."""
    one, cached, other = road(), road(), road(store=str(tmp_path / "other"))
    assert facts_of(one) == facts_of(cached) == facts_of(other)
    assert list(facts_of(one)) == ["seed", "sort"]
    seed = facts_of(one)["seed"]
    assert (seed.word, seed.settings, seed.made) == ("seed", {"numbers": [3, 1, 2], "comment": ""}, {"numbers": 3})
    assert seed.key == one.stages[0].key[:12]
    said = json.dumps(PublishConfig().of(facts_of(one)).identity())
    assert one.id not in said and str(tmp_path) not in said


def test_a_setting_that_changes_no_byte_changes_the_card(road: Road):
    """What follows stays cached, but the card would name a setting that the run does not have."""
    before, after = road(), road(SeedConfig(comment="new"))
    assert after.stages[1].state == "cached"
    assert PublishConfig().of(facts_of(before)).identity() != PublishConfig().of(facts_of(after)).identity()


def test_noise_of_a_mean_is_rounded_away_and_places_are_left_out(road: Road):
    """Of gates four digits stay; of sources the repository and commit of a hub dataset, never a folder."""
    run = road()
    row = {"gate": "loss", "value": 0.123456789, "standard_error": None, "against": 1, "passed": False}
    commit, folder = "hub://someone/set@" + "a" * 40, "hub:///data/set@" + "b" * 64
    names = [{"name": name, "parts": {}} for name in ("first", "second", "third")]
    assert run.stages[0].manifest is not None
    counts = replace(run.stages[0].manifest.counts, gates=[row])
    sources = {"sources": [commit, folder, "/data/pages"]}
    rewritten(run, "seed", counts=counts, inputs={"sources": names}, sources=sources)
    seed = facts_of(run)["seed"]
    assert seed.gates == [row | {"value": 0.1235}]
    assert seed.repositories == {"first": "someone/set@" + "a" * 40}


def test_a_stage_that_an_increment_is_pinned_to_speaks_too(road: Road):
    """Its record has no manifest in it: the store has."""
    run = road()
    run.stages[0].manifest = None
    assert facts_of(run)["seed"].made == {"numbers": 3}


def test_a_plan_with_stages_to_make_takes_what_the_newest_card_was_made_of(road: Road):
    """So nothing of `publish` itself differs in that plan; with everything cached it has the facts of this road."""
    run = road()
    known = facts_of(run)
    sort = run.stages[1]
    assert isinstance(sort.manifest, Manifest)
    home = run.store.home("publish", "c" * 64, 1)
    card = replace(sort.manifest, word="publish", key="c" * 64, config=PublishConfig().of(known).identity())
    Path(home).mkdir(parents=True)
    Path(home, "manifest.json").write_bytes(card.to_json())
    run.stages.append(StageRecord("publish", "publish", "made", "", "c" * 64, sort.digest, 1))
    run.save("completed")
    planned = road(SeedConfig(numbers=[9]), mode="plan")
    assert planned.stages[0].state == "run"
    assert facts_of(planned) == known
    assert facts_of(road(mode="plan")) == known
    assert facts_of(road(mode="plan", preset="nobody", store=run.store.root + "-empty")) == {}
