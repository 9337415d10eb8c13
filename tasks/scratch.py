"""Scratch folders of stages on local disk, removed at their end, or by the next stage where a run was killed."""

import fcntl
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

_MARK = "tokenmill-"


@contextmanager
def scratch_folder(name: str) -> Generator[Path]:
    """A fresh folder, locked as long as this process lives."""
    _clear()
    with (
        tempfile.TemporaryDirectory(prefix=f"{_MARK}{name}-", ignore_cleanup_errors=True) as folder,
        Path(folder, "lock.new").open("w") as lock,
    ):
        # The lock has its name only once it is held: nobody can take the folder for a dead one before.
        fcntl.flock(lock, fcntl.LOCK_EX)
        Path(folder, "lock.new").rename(Path(folder, "lock"))
        yield Path(folder)


def _clear() -> None:
    """Remove what killed runs left: copies of inputs from s3 can fill a disk."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_MARK}*/lock"):
        with suppress(OSError), lock.open("r+") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
