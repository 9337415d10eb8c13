"""Debian packages without root: fetched and unpacked, never installed."""

import os
import pwd
import re
import shutil
import subprocess
from pathlib import Path

from data_curation.settings import InputError, TransientError

SECONDS = 900
"""Time limit of one apt-get call: 30 MB take seconds, a slow mirror minutes."""
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")


class NothingFetchedError(TransientError):
    """No Debian client, or no package could be fetched at all."""


def download(packages: list[str], folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Fetch and unpack packages below `folder`: {package: its unpacked tree}, and the names this release lacks.

    Raises NothingFetchedError where apt is missing or no archive answers, TransientError where only some came.
    """
    for name in packages:
        if not _NAME.fullmatch(name):
            raise InputError(f"{name!r} is not the name of a Debian package")
    if not all(shutil.which(tool) for tool in ("apt-get", "apt-cache", "dpkg-deb")):
        raise NothingFetchedError("apt-get, apt-cache or dpkg-deb is not on this machine")
    options = _options(folder)
    _run(["apt-get", *options, "-q", "update"], folder)
    known = _known(packages, options, folder)
    if not known:
        raise NothingFetchedError(f"the package lists know none of {', '.join(packages)}")
    debs = folder / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    _run(["apt-get", *options, "-q", "-o", "Acquire::Retries=3", "download", *known], debs)
    return {name: _unpack(name, debs, folder / "unpacked" / name) for name in known}, [
        name for name in packages if name not in known
    ]


def _options(folder: Path) -> list[str]:
    """Lists and cache of our own, so that no root is needed and the system's are untouched."""
    lists, cache = folder / "lists", folder / "cache"
    for path in (lists / "partial", cache / "archives" / "partial"):
        path.mkdir(parents=True, exist_ok=True)
    settings = {
        "Dir::State::lists": str(lists.resolve()),
        "Dir::Cache": str(cache.resolve()),
        "APT::Sandbox::User": pwd.getpwuid(os.getuid()).pw_name,
        "Debug::NoLocking": "1",
        # Without it a failed update is a warning, and the lists stay empty.
        "APT::Update::Error-Mode": "any",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def _known(packages: list[str], options: list[str], folder: Path) -> list[str]:
    command = ["apt-cache", *options, "show", "--no-all-versions", *packages]
    # Exit code 100 only says that some are unknown.
    shown = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True, timeout=SECONDS)
    found = {
        line.removeprefix("Package: ").strip() for line in shown.stdout.splitlines() if line.startswith("Package:")
    }
    return [name for name in packages if name in found]


def _unpack(name: str, debs: Path, target: Path) -> Path:
    files = sorted(debs.glob(f"{name}_*.deb"))
    if not files:
        raise TransientError(f"{name}: apt-get download left no file for it; try again")
    target.mkdir(parents=True, exist_ok=True)
    _run(["dpkg-deb", "-x", str(files[-1].resolve()), str(target.resolve())], debs)
    return target


def _run(command: list[str], folder: Path) -> None:
    """Run one client; a failure says which and its last line."""
    what = " ".join(word for word in command if "::" not in word and word not in ("-o", "-q"))[:200]
    try:
        done = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise TransientError(f"{what}: no end after {SECONDS} s; try again") from None
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("E:", "Err:", "dpkg"))]
        error = NothingFetchedError if "update" in command else TransientError
        raise error(f"{what}: exit code {done.returncode}: {lines[-1] if lines else 'no message'}")


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
