"""The configuration: presets load, settings are laid over them, and what is wrong is one line with a remedy."""

from pathlib import Path

import pytest

from data_curation.settings import ConfigError, Settings
from flows.config import PipelineConfig, load, stage_names
from flows.presets import presets
from tests.flows.settings import every_settings_class


@pytest.mark.parametrize("preset", ["demo", "h100", "cluster"])
def test_presets_load(preset: str):
    """Every preset is a valid configuration with growing lengths and most tokens in the first phase."""
    phases = load(preset).pretrain.phases
    assert [phase.seq_len for phase in phases] == sorted(phase.seq_len for phase in phases)
    assert phases[0].tokens > sum(phase.tokens for phase in phases[1:])
    assert preset in presets()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dedup.bandz=3", r"^dedup\.bandz: no such setting: did you mean bands\?"),
        ("nonsense.x=3", r"^nonsense: no such setting: known here: dialogues, extract"),
        ("dedup.bands=many", r"^dedup\.bands: .*integer.* it is 'many'"),
        ("pretrain.phases.1.seq_len=64", r"^pretrain\.phases\[1\]\.seq_len is 64.*lengths must grow"),
        (
            "pretrain.phases.0.tokens=200000",
            r"^pretrain\.phases\[0\]\.tokens is \d+% of all tokens.*raise it or shorten",
        ),
        ("pretrain.phases.0.tokens=-1", r"^pretrain\.phases\[0\]\.tokens.*-1"),
        ("pretrain.phases.9.tokens=1", r"'9' is no position in a list of 3"),
        ("clean.languages.99.score=1", r"'99' is no position in a list of \d+: count"),
        ("dedup.bands", r"write section\.field=value"),
        ("extract.sources.0.limit.x=1", r"nothing is below it|has no fields"),
    ],
)
def test_wrong_settings_are_explained(text: str, words: str):
    """A wrong setting is one line: its path, what is wrong, the value, what to do."""
    with pytest.raises(ConfigError, match=words) as raised:
        load("demo", [text])
    assert "\n" not in str(raised.value)


def test_values_are_yaml_and_later_ones_win():
    """`--set` takes YAML values, numbers as people write them, and the last one wins."""
    config = load("demo", ["pretrain.phases.0.tokens=2e6", "dedup.bands=3", "dedup.bands=5", "clean.fineweb=null"])
    assert (config.pretrain.phases[0].tokens, config.dedup.bands, config.clean.fineweb) == (2_000_000, 5, None)


def test_positions_reach_into_lists_that_no_file_names(tmp_path: Path):
    """A setting inside a default list changes that one alone, and no later configuration."""
    path = tmp_path / "mine.yaml"
    path.write_text("dedup: {bands: 3}\n")
    before, after = load(str(path)), load(str(path), ["clean.languages.0.score=0.7", "extract.sources.0.limit=5"])
    first = before.clean.languages[0].model_copy(update={"score": 0.7})
    assert after.clean.languages == [first, *before.clean.languages[1:]]
    assert after.extract.sources == [before.extract.sources[0].model_copy(update={"limit": 5})]
    assert load(str(path)) == before


def test_files_and_missing_files(tmp_path: Path):
    """A YAML file is taken by its path; a missing, broken or empty one is named."""
    path = tmp_path / "mine.yaml"
    path.write_text("dedup: {bands: 3}\n")
    assert load(str(path)).dedup.bands == 3
    path.write_text("dedup: {bands: 3\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: line 2 not YAML"):
        load(str(path))
    path.write_text("")
    with pytest.raises(ConfigError, match="sections"):
        load(str(path))
    with pytest.raises(ConfigError, match="no such preset or file; presets are"):
        load(str(tmp_path / "none.yaml"))


def test_every_setting_has_its_line():
    """Every field of every section has a docstring: the help, the form in the UI and the page stand on it."""
    for cls in every_settings_class(PipelineConfig):
        for name, field in cls.model_fields.items():
            assert field.description, f"{cls.__name__}.{name}"
            assert cls.model_config.get("frozen") and cls.model_config.get("extra") == "forbid"


def test_places_are_not_identity(tmp_path: Path):
    """Where a source lies changes no key; which source it is does."""

    def identity(path: str, name: str) -> object:
        source = f"{{name: {name}, kind: html, path: {path}}}"
        section: Settings = load("demo", [f"extract.sources=[{source}]"]).extract
        return section.identity()

    assert identity("/a", "web") == identity("/b", "web")
    assert identity("/a", "web") != identity("/a", "other")


def test_stages_are_called_as_the_road_calls_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The names that the command accepts are the words and the names of the road's stages, and no others."""
    from flows.plan import Asked, plan

    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_text("")
    (tmp_path / "tokenizer.json").write_text("{}")
    for sets in ([], ["base.path=.", "tokenizer.path=."]):
        config = load("demo", sets)
        records = plan("demo", config, Asked()).stages
        assert set(stage_names(config)) == {name for record in records for name in (record.stage, record.name)}
