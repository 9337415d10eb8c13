"""PipelineConfig: one section per stage, plus `run`; read from a preset or file, with `--set` on top."""

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import ValidationError, model_validator

from data_curation.clean import CleanConfig
from data_curation.decontaminate import DecontaminateConfig
from data_curation.dedup import DedupConfig
from data_curation.dialogues import DialoguesConfig
from data_curation.extract import ExtractConfig
from data_curation.settings import ConfigError, Settings
from data_curation.shard import ShardConfig
from data_curation.tokenizer import TokenizerConfig
from flows.presets import CONFIGS, presets
from tasks.pins import IncrementConfig
from tasks.run import RunConfig
from tasks.secrets import check_no_secrets
from training.base import BaseConfig
from training.evaluate import EvaluateConfig
from training.instruct import InstructConfig
from training.pairs import PairsConfig
from training.prefer import PreferConfig
from training.pretrain import PretrainConfig
from training.publish import PublishConfig
from training.reinforce import ReinforceConfig
from training.reward import RewardConfig


class PipelineConfig(Settings):
    """Everything that can be said about a run, section by section in the order of the road."""

    dialogues: DialoguesConfig = DialoguesConfig()
    """Conversations: sources, checks, splits, generated tasks."""
    extract: ExtractConfig = ExtractConfig()
    """Raw pages to text."""
    clean: CleanConfig = CleanConfig()
    """Language and quality rules."""
    dedup: DedupConfig = DedupConfig()
    """Exact and near duplicates."""
    decontaminate: DecontaminateConfig = DecontaminateConfig()
    """Evaluation data out of the training documents."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """Byte-level BPE."""
    shard: ShardConfig = ShardConfig()
    """Token shards and the held-out split."""
    pretrain: PretrainConfig = PretrainConfig()
    """The model and its length-progressive phases."""
    base: BaseConfig = BaseConfig()
    """An existing model in place of `pretrain`."""
    instruct: InstructConfig = InstructConfig()
    """Supervised fine-tuning on conversations."""
    pairs: PairsConfig = PairsConfig()
    """On-policy preference pairs."""
    reward: RewardConfig = RewardConfig()
    """Reward model."""
    prefer: PreferConfig = PreferConfig()
    """DPO."""
    reinforce: ReinforceConfig = ReinforceConfig()
    """GRPO on verifiable tasks."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """What every model is measured by."""
    publish: PublishConfig = PublishConfig()
    """The model folder and its card."""
    increment: IncrementConfig = IncrementConfig()
    """What a new crawl goes on from."""
    run: RunConfig = RunConfig()
    """Where and how to run; never part of any key."""

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if self.base.path and not self.tokenizer.path:
            raise ValueError("base.path needs tokenizer.path: a model reads what its own tokenizer writes")
        for name in ("hours", "stages"):
            for word in getattr(self.run, name):
                if word not in WORDS:
                    near = difflib.get_close_matches(word, WORDS, 1)
                    raise ValueError(f"run.{name} names {word!r}: stages are {', '.join(near or WORDS)}")
        return self


WORDS = (
    "extract",
    "clean",
    "dedup",
    "decontaminate",
    "tokenizer",
    "shard",
    "pretrain",
    "base",
    "dialogues",
    "instruct",
    "pairs",
    "reward",
    "prefer",
    "reinforce",
    "evaluate",
    "publish",
)
"""The stages' words, in the order of design and documentation."""


def stage_names(config: PipelineConfig) -> list[str]:
    """What a stage can be called by: its word, or the full name that a phase or model gives it in this road."""
    phases = [] if config.base.path else config.pretrain.names()
    evaluated = [f"evaluate-{name}" for name in (*phases[:-1], "base", "sft", "dpo", "grpo")]
    words = [word for word in WORDS if word != ("pretrain" if config.base.path else "base")]
    return [*words, *phases, *evaluated]


def load(preset: str, sets: Sequence[str] = ()) -> PipelineConfig:
    """Read a preset by name, or a YAML file by path, and lay the settings `section.field=value` over it.

    Raises ConfigError in one line: the setting's path, what is wrong, the value, what to do.
    """
    return lay(_read(preset), sets)


def lay(data: dict[str, Any], sets: Sequence[str]) -> PipelineConfig:
    """The settings in `data`, which changes, with `section.field=value` laid over them; errors as of `load`."""
    for text in sets:
        _lay(data, text)
    check_no_secrets(data)
    try:
        return PipelineConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None


def _read(preset: str) -> dict[str, Any]:
    path = CONFIGS / f"{preset}.yaml"
    if not path.is_file():
        path = Path(preset)
    if not path.is_file():
        raise ConfigError(f"preset {preset!r}: no such preset or file; presets are {', '.join(presets())}")
    try:
        data = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        place = getattr(error, "problem_mark", None)
        line = f" line {place.line + 1}" if place else ""
        raise ConfigError(f"{path}:{line} not YAML: {getattr(error, 'problem', error)}: mend that line") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: {type(data).__name__} at the top: sections (extract:, clean:, ...) are needed")
    return data


def _lay(data: dict[str, Any], text: str) -> None:
    """Lay one `section.field=value` over the data; list positions are numbers, values are YAML."""
    path, separator, value = text.partition("=")
    if not separator or not path:
        raise ConfigError(f"--set {text!r}: write section.field=value")
    *parents, last = path.strip().split(".")
    node: Any = data
    for end in range(1, len(parents) + 1):
        node = _step(node, parents[:end])
    try:
        parsed = _scalar(yaml.safe_load(value))
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {path}: {value!r} is no YAML value") from error
    if isinstance(node, list):
        node[_position(node, last, path)] = parsed
    elif isinstance(node, dict):
        node[last] = parsed
    else:
        raise ConfigError(f"--set {path}: {'.'.join(parents)} is a {type(node).__name__}, it has no fields")


def _step(node: Any, path: list[str]) -> Any:
    """What lies at the last name of the path, made where the data do not have it: a list as its default is."""
    name = path[-1]
    if isinstance(node, list):
        return node[_position(node, name, ".".join(path))]
    if isinstance(node, dict):
        if node.get(name) is None:
            default = _default(path) if name not in node else None
            node[name] = default if isinstance(default, list) else {}
        return node[name]
    raise ConfigError(f"--set {'.'.join(path)}: nothing is below it")


def _default(path: list[str]) -> Any:
    """The default of a setting as the data of a YAML file, None where there is no such setting."""
    model = _class_at(path[:-1])
    field = getattr(model, "model_fields", {}).get(path[-1])
    value = field.get_default(call_default_factory=True) if field else None
    if isinstance(value, list):
        return [one.model_dump(exclude_unset=True) if isinstance(one, Settings) else one for one in value]
    return value


def _position(node: list[Any], name: str, path: str) -> int:
    if not name.isdigit() or int(name) >= len(node):
        raise ConfigError(f"--set {path}: {name!r} is no position in a list of {len(node)}: count from 0")
    return int(name)


def _scalar(value: Any) -> Any:
    # YAML 1.1 reads 2e6 as text: numbers are meant as people write them.
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        number = float(value)
        return int(number) if number.is_integer() else number
    return value


def _explain(error: ValidationError) -> str:
    """The first complaint as one line, unknown keys with the nearest known one."""
    first = error.errors(include_url=False)[0]
    path = _path(first["loc"])
    more = error.error_count() - 1
    tail = f" (and {more} more)" if more else ""
    if first["type"] == "extra_forbidden":
        known = _fields_at(first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, 1)
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
        return f"{path}: no such setting: {hint}{tail}"
    if first["type"] == "missing":
        return f"{path}: is missing: give it a value{tail}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return (f"{path}: {message}" if path and not message.startswith(str(first["loc"][0])) else message) + tail
    return f"{path}: {message[0].lower()}{message[1:]}, it is {first['input']!r}: give another value{tail}"


def _path(location: Iterable[int | str]) -> str:
    text = "".join(f"[{item}]" if isinstance(item, int) else f".{item}" for item in location)
    return text.lstrip(".")


def _fields_at(location: Sequence[int | str]) -> list[str]:
    """Names of the settings that exist at a place of the tree."""
    return list(getattr(_class_at(location), "model_fields", {}))


def _class_at(location: Sequence[int | str]) -> Any:
    """The class of the settings at a place of the tree, or of the entries of a list."""
    model: Any = PipelineConfig
    for name in location:
        if isinstance(name, str) and name in getattr(model, "model_fields", {}):
            model = model.model_fields[name].annotation
        for inner in getattr(model, "__args__", ()):
            if hasattr(inner, "model_fields"):
                model = inner
    return model
