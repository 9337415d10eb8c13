"""Walks the tree of settings classes."""

import typing
from collections.abc import Iterator
from typing import Any

from data_curation.settings import Settings


def every_settings_class(root: type[Settings]) -> Iterator[type[Settings]]:
    """The class and all classes of its fields, at any depth."""
    yield root
    for field in root.model_fields.values():
        for inner in _inside(field.annotation):
            yield from every_settings_class(inner)


def _inside(annotation: Any) -> Iterator[type[Settings]]:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _inside(argument)
