"""A store as a plan asks it: what the newest run used is looked up at once, not one stage after another."""

from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tasks.artifact import Manifest
from tasks.store import THREADS, Found, Store


class Ahead(Store):
    """A store that looks some stages up before they are asked for: on s3 most of a plan would be waiting.

    `stages` are entries of a run. What they name is as it was when this was made, which is the moment of the plan.
    """

    def __init__(self, uri: str, stages: Iterable[Mapping[str, Any]]) -> None:
        super().__init__(uri)
        find = super().find
        pool = ThreadPoolExecutor(THREADS, "look-up")
        self._found: dict[tuple[str, str], Future[Found]] = {
            (stage["stage"], stage["key"]): pool.submit(find, stage["stage"], stage["key"]) for stage in stages
        }
        pool.shutdown(wait=False)

    def find(self, word: str, key: str) -> Found:
        """As of any store."""
        asked = self._found.get((word, key))
        return super().find(word, key) if asked is None else asked.result()

    def manifest(self, word: str, key: str, attempt: int) -> Manifest:
        """As of any store."""
        manifest = self.find(word, key).manifest if (word, key) in self._found else None
        return manifest if manifest and manifest.attempt == attempt else super().manifest(word, key, attempt)
