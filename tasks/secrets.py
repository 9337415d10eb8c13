"""Credentials taken out of texts: libraries put them into messages, and messages reach logs, pages and the store."""

import os
import re
from collections.abc import Iterator
from typing import Any, cast

from data_curation.settings import ConfigError, InputError, StageError, TokenmillError, TransientError, is_transient

# s3://user:secret@host and ?token=... ; in JSON a value ends at its quotation mark.
_USER = re.compile(r"(?<=://)[^/\s@\"']+:[^@\s/\"']+(?=@)")
_SECRETS = (
    _USER,
    re.compile(r"(?i)(?:(?<=token=)|(?<=secret=)|(?<=password=)|(?<=signature=)|(?<=credential=))[^&\s\"']+"),
)
_NAMES = re.compile(r"(?i)(key|token|secret|password|passwd|auth_string|credentials?)$")
_SHORTEST = 8
"""Characters of the shortest value that is taken for a secret: shorter ones stand in innocent words."""


def clean(text: str) -> str:
    """Text without credentials: those in URLs and queries, and the values of this process's secret variables."""
    for value in _values():
        text = text.replace(value, "***")
    for pattern in _SECRETS:
        text = pattern.sub("***", text)
    return text


def cleaned(error: BaseException) -> Exception | None:
    """The error in our own words if it, or one that caused it, holds a secret: Prefect keeps the whole chain."""
    chain = list(_chain(error))
    if all(clean(str(one)) == str(one) for one in chain):
        return None
    words = clean(str(error))
    for kind in (ConfigError, InputError, StageError, TransientError, TokenmillError):
        if isinstance(error, kind):
            return kind(words)
    return (TransientError if is_transient(error) else StageError)(f"{type(error).__name__}: {words}")


def check_no_secrets(value: Any, path: str = "") -> None:
    """A ConfigError for a setting that holds a credential, without repeating it: settings are kept and shown."""
    if isinstance(value, dict):
        for name, inner in cast(dict[Any, Any], value).items():
            check_no_secrets(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for index, inner in enumerate(cast(list[Any], value)):
            check_no_secrets(inner, f"{path}.{index}")
    elif isinstance(value, str) and (_USER.search(value) or any(secret in value for secret in _values())):
        raise ConfigError(f"{path}: a credential is in it, and settings are kept and shown: use the environment")


def _values() -> Iterator[str]:
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and _NAMES.search(name):
            yield value


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
