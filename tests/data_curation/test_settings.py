"""Errors told apart: what a second try may heal, and what it would meet again."""

import errno

import pytest

from data_curation.settings import ConfigError, InputError, StageError, TransientError, is_transient


def network_error(module: str, name: str) -> Exception:
    """An error of a subclass of a network library's error class, which need not be installed."""
    base = type(name, (Exception,), {"__module__": f"{module}.exceptions"})
    return type("Special", (base,), {"__module__": f"{module}.other"})("no answer")


@pytest.mark.parametrize(
    "error",
    [
        TransientError("the network"),
        TimeoutError(),
        ConnectionResetError(),
        OSError(errno.EIO, "input/output error"),
        OSError(errno.ESTALE, "stale file handle"),
        network_error("botocore", "HTTPClientError"),
        network_error("aiohttp", "ClientError"),
        network_error("httpx", "TransportError"),
    ],
)
def test_the_world_may_heal(error: Exception):
    """Networks, time-outs and disks that stumble are tried again."""
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        ConfigError(""),
        InputError(""),
        StageError(""),
        ValueError(),
        FileNotFoundError(errno.ENOENT, "no such file"),
        PermissionError(errno.EACCES, "denied"),
        OSError(errno.ENOSPC, "no space left"),
        OSError("could not verify page integrity"),
        network_error("elsewhere", "ClientError"),
    ],
)
def test_what_is_wrong_stays_wrong(error: Exception):
    """Settings, data, code, missing files, full disks and a library's verdict on a file are not tried again."""
    assert not is_transient(error)
