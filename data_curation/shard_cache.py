"""The files of a folder of shards as local paths: in place on disk, fetched into a bounded cache from s3."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from data_curation.files import copy_file, is_local, join, local_path, sha256_file
from data_curation.settings import InputError

FETCHES = 4  # files fetched at a time: one stream from s3 rarely fills a network


class ShardCache:
    """Gives local paths for the files of `folder`, a path or URI.

    Remote files are copied into `copies` when they are first needed or announced, and held against their sha256. Those
    used longest ago make room for new ones within `limit` bytes, or for a single file that is larger; `removed` hears
    their names. Processes may share a folder of copies: whoever finds a file removed fetches it again.
    """

    def __init__(
        self,
        folder: str,
        copies: Path | None = None,
        limit: int = 1 << 62,
        removed: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.folder, self.limit, self.removed = folder, limit, removed
        self.remote = not is_local(folder)
        """Whether files come from elsewhere."""
        if self.remote and copies is None:
            raise InputError(f"{folder}: not on this machine; a folder for local copies is needed")
        self._home = copies if self.remote and copies is not None else local_path(folder)
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._coming: dict[str, Future[None]] = {}
        self._fetchers: ThreadPoolExecutor | None = None

    def path(self, name: str, size: int, sha256: str) -> Path:
        """The local path of a file, complete and checked if it came from elsewhere."""
        if self.remote:
            self._fetch_soon(name, size, sha256)
            self._coming[name].result()
            if not (self._home / name).is_file():  # another process on this machine made room for its own
                del self._coming[name], self._sizes[name]
                self._fetch_soon(name, size, sha256)
                self._coming[name].result()
        return self._home / name

    def announce(self, files: Sequence[tuple[str, int, str]]) -> None:
        """Begin to fetch files (name, size, sha256) that are needed soon, as many as fill half of the limit."""
        room = self.limit // 2
        for name, size, sha256 in files if self.remote else []:
            room -= size
            if room < 0:
                return
            self._fetch_soon(name, size, sha256)

    def close(self) -> None:
        """Wait for what is under way and end the threads."""
        if self._fetchers is not None:
            self._fetchers.shutdown(cancel_futures=True)
            self._fetchers = None

    def _fetch_soon(self, name: str, size: int, sha256: str) -> None:
        known = self._coming.get(name)
        if known is not None and not (known.done() and known.exception()):
            self._sizes.move_to_end(name)
            return
        self._make_room(size)
        if self._fetchers is None:
            self._fetchers = ThreadPoolExecutor(FETCHES, thread_name_prefix="shards")
        self._sizes[name] = size
        self._coming[name] = self._fetchers.submit(self._fetch, name, sha256)

    def _make_room(self, size: int) -> None:
        """Remove files that nobody waits for, oldest first."""
        used = sum(self._sizes.values()) + size
        for name in [name for name in self._sizes if self._coming[name].done()]:
            if used <= self.limit:
                return
            used -= self._sizes.pop(name)
            del self._coming[name]
            (self._home / name).unlink(missing_ok=True)
            self.removed(name)

    def _fetch(self, name: str, sha256: str) -> None:
        target, source = self._home / name, join(self.folder, name)
        with suppress(FileNotFoundError):
            if sha256_file(str(target)) == sha256:
                return  # of another process on this machine
        try:
            copy_file(source, str(target))
        except FileNotFoundError as error:
            raise InputError(f"{source}: missing; make the shards again") from error
        with suppress(FileNotFoundError):  # removed by another process: `path` fetches it again
            if sha256_file(str(target)) != sha256:
                target.unlink()
                raise InputError(f"{source}: damaged, its sha256 is not that of the index; make the shards again")
