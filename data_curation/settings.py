"""Frozen settings, what of them is identity, and the error tree of the project.

TokenmillError                one line for a person: where, what is wrong, what to do
|-- ConfigError               the configuration is wrong; nothing has run; exit code 2; never retried
|-- InputError                the data are wrong (missing, damaged, empty); never retried
|-- StageError                a stage failed on its own account; never retried
`-- TransientError            the world was in the way (network, time-out, a killed worker); retried
"""

import errno
import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class TokenmillError(Exception):
    """Any failure that the project explains in one line."""


class ConfigError(TokenmillError):
    """A setting is wrong: its path, what is wrong, the value, what to do."""


class InputError(TokenmillError):
    """Input data are missing, damaged or leave nothing to work on."""


class StageError(TokenmillError):
    """A stage failed for a reason that a second try would meet again."""


class TransientError(TokenmillError):
    """A stage failed for a reason that may be gone at the next try."""


_LASTING = frozenset(
    [
        *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY),
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL),
    ]
)
"""Answers of an operating system that a second try would meet again."""
_NETWORK = {"botocore": "HTTPClientError", "aiohttp": "ClientError", "httpx": "TransportError", "requests": "IOError"}
"""By package, the class of the errors that say that a network was in the way; none of them need be installed."""


def is_transient(error: BaseException) -> bool:
    """Whether the world was in the way (network, time-out, a disk that stumbled), so that a second try may pass."""
    if isinstance(error, TransientError | TimeoutError):
        return True
    if isinstance(error, TokenmillError):
        return False
    if any(_NETWORK.get(one.__module__.split(".")[0]) == one.__name__ for one in type(error).__mro__):
        return True
    if type(error) is OSError and error.errno is None:
        return False  # no system's answer but a library's words, such as Arrow's about a damaged file
    return isinstance(error, OSError) and error.errno not in _LASTING


class Settings(BaseModel):
    """A section of the configuration: frozen, unknown keys refused, one docstring line per field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)

    def identity(self) -> dict[str, Any]:
        """What of this section can change the meaning of the output, as plain JSON data."""
        return {
            name: _plain(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if not (isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("identity") is False)
        }


def outside_identity(default: Any = ..., **constraints: Any) -> Any:
    """A field that says where or how, never what: it stays out of the key (`path: str = outside_identity()`)."""
    return Field(default, json_schema_extra={"identity": False}, **constraints)


def canonical(data: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal data give equal bytes."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sha256_of(data: Any) -> str:
    """Hex sha256 of plain JSON data."""
    return hashlib.sha256(canonical(data)).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.identity()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value
