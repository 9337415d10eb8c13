"""The form of the deployment `stage`: each section's settings, all optional, with help and bounds."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, cast

from pydantic import WithJsonSchema

from flows.config import WORDS, PipelineConfig

Schema = dict[str, Any]
NOTHING: Schema = {"type": "null", "title": "as in the preset"}


def form(word: str) -> Schema:
    """JSON schema of a stage's section in which every field may be left empty, which means the preset's value."""
    model: Any = PipelineConfig.model_fields[word].annotation
    whole = cast(Schema, model.model_json_schema())
    return _optional(whole, whole.get("$defs", {})) | {"title": word}


def sets(word: str, filled: Mapping[str, Any]) -> list[str]:
    """What was filled in as `section.field=value`, as `--set` takes it."""
    return [f"{path}={json.dumps(value)}" for path, value in _leaves(word, filled)]


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Every field that is not empty; lists are replaced whole."""
    if isinstance(value, Mapping):
        for name, inner in cast(Mapping[str, Any], value).items():
            yield from _leaves(f"{path}.{name}", inner)
    elif value not in (None, "", []):
        yield path, value


def _optional(schema: Schema, defs: Schema) -> Schema:
    """A section's schema without defaults: the form would send them as if they had been typed."""
    fields = {name: _field(field, defs, name) for name, field in schema.get("properties", {}).items()}
    return {"type": "object", "properties": fields, "additionalProperties": False}


def _field(schema: Schema, defs: Schema, name: str) -> Schema:
    default, help_ = schema.get("default"), schema.get("description", "")
    plain = _plain(schema, defs)
    if plain.get("type") == "object" and "properties" in plain:
        return _optional(plain, defs) | {"title": name, "description": help_}
    if plain.get("type") == "boolean":
        plain = {"type": "string", "enum": ["true", "false"]}  # a switch has no third position for "as in the preset"
    kept = {key: value for key, value in _inlined(plain, defs).items() if key not in ("default", "identity")}
    words = [help_, _bounds(plain), "" if default in (None, []) else f"Default {json.dumps(default)}."]
    return kept | {"title": name, "description": " ".join(filter(None, words))}


def _bounds(schema: Schema) -> str:
    """The bounds in words: the form shows them only after a wrong value."""
    names = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    words = [f"{name} {schema[key]:,}" for key, name in names.items() if key in schema]
    return ", ".join(words).capitalize() + "." if words else ""


def _plain(schema: Schema, defs: Schema) -> Schema:
    """The schema behind a reference, without the choice of null: to leave a field empty is that choice."""
    if "$ref" in schema:
        return _plain(defs[schema["$ref"].rsplit("/", 1)[-1]], defs)
    choices = [choice for choice in schema.get("anyOf", []) if choice.get("type") != "null"]
    if len(choices) == 1:
        return _plain(choices[0], defs)
    return schema


def _inlined(node: Any, defs: Schema) -> Any:
    """The schema with its references replaced: Prefect's own definitions have no room for ours."""
    if isinstance(node, list):
        return [_inlined(item, defs) for item in cast(list[Any], node)]
    if not isinstance(node, dict):
        return node
    here = cast(Schema, node)
    if "$ref" in here:
        return _inlined(defs[here["$ref"].rsplit("/", 1)[-1]], defs)
    return {key: _inlined(value, defs) for key, value in here.items() if key != "$defs"}


def _choice(words: Sequence[str]) -> Schema:
    return {"anyOf": [NOTHING, *map(form, words)], "default": None}


# Two rows of tabs: all words in one row are wider than a screen.
TRAINING = ("pretrain", "base", "instruct", "pairs", "reward", "prefer", "reinforce", "evaluate", "publish")
CurationForm = Annotated[
    dict[str, Any] | None, WithJsonSchema(_choice([word for word in WORDS if word not in TRAINING]))
]
TrainingForm = Annotated[dict[str, Any] | None, WithJsonSchema(_choice(TRAINING))]
