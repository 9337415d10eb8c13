"""The form of the deployment `stage`: every setting of every stage, all optional, and what is filled in arrives."""

from typing import Any

import pytest

from data_curation.settings import ConfigError
from flows.config import WORDS, PipelineConfig, load
from flows.forms import form, sets


def _fields(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """All fields of a form, those of sections below it too."""
    below = [field for field in schema["properties"].values() if "properties" in field]
    plain = [field for field in schema["properties"].values() if "properties" not in field]
    return plain + [field for section in below for field in _fields(section)]


@pytest.mark.parametrize("word", WORDS)
def test_a_form_has_every_setting_with_help_and_sends_nothing_by_itself(word: str):
    """All fields of the section with a description; none is required, none has a default that would be sent."""
    model: Any = PipelineConfig.model_fields[word].annotation
    shown = form(word)
    assert list(shown["properties"]) == list(model.model_fields)
    assert "required" not in shown
    for field in _fields(shown):
        assert field["description"]
        assert "default" not in field and "$ref" not in str(field)


def test_bounds_and_defaults_are_said():
    """A person sees what is allowed, and what a preset that says nothing means, before typing."""
    bands = form("dedup")["properties"]["bands"]
    assert (bands["minimum"], bands["maximum"]) == (1, 100)
    assert bands["description"].endswith("At least 1, at most 100. Default 14.")


def test_what_is_filled_in_lies_over_the_preset_and_the_rest_is_as_in_the_preset():
    """Numbers, switches, sections and lists arrive; empty fields change nothing."""
    filled = {"bands": 20, "url": "false", "rows": None, "survivor": "", "indexes": []}
    changed, plain = load("demo", sets("dedup", filled)), load("demo")
    assert (changed.dedup.bands, changed.dedup.url) == (20, False)
    assert changed.dedup.model_copy(update={"bands": plain.dedup.bands, "url": plain.dedup.url}) == plain.dedup
    assert load("demo", sets("clean", {"gopher": {"min_words": 7}})).clean.gopher.min_words == 7
    assert load("demo", sets("prefer", {"learning_rate": 2e-5})).prefer.learning_rate == 2e-5


def test_settings_of_another_stage_are_refused():
    """What is typed into the form of another stage than the chosen one is named, not passed over."""
    from flows.stage import stage

    with pytest.raises(ConfigError, match=r"stage dedup: settings of another stage are filled in \(\.learning_rate"):
        stage.fn("dedup", training={"learning_rate": 1e-3})
    with pytest.raises(ConfigError, match=r"dedup\.gopher: no such setting"):
        stage.fn("dedup", curation={"gopher": {"min_words": 3}})
