"""What each stage of a plan will take: from its last run here where there was one, else from measured rates."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_curation.artifact import Artifact
from data_curation.dialogues import DialoguesConfig
from data_curation.place import Resources
from data_curation.settings import ConfigError
from data_curation.shard_index import Index
from data_curation.sources.shares import fractions
from data_curation.sources.source import Source
from data_curation.tokenizer import TokenizerConfig
from tasks import rates
from tasks.alignment_cost import ALIGNMENT, Chats, work_of
from tasks.rates import CURATION, Rate
from tasks.run import Run, StageRecord
from training.architecture import ModelConfig

ASSUMED = "measured rates (tasks/rates.py)"


@dataclass(frozen=True)
class Calibration:
    """What a probe measured on this machine, with these settings and sources."""

    speeds: Mapping[str, float] = field(default_factory=dict[str, float])
    """Tokens a second of each phase of pretraining, by its name."""
    curation: Mapping[str, Rate] = field(default_factory=dict[str, Rate])
    """Rates of curation stages on these sources."""


@dataclass(frozen=True)
class Amount:
    """Raw data of a source, or of several."""

    raw: float
    """Bytes of content, unpacked."""
    text: float
    """Bytes of text expected in them, by the rates of documentation pages."""


class Estimate:
    """Goes along the road and attaches bytes, tokens, FLOPs and seconds to every stage of a plan."""

    def __init__(
        self, run: Run, model: ModelConfig, vocabulary: int, calibration: Calibration, achieved: float | None
    ) -> None:
        self.run, self.model, self.vocabulary, self.calibration = run, model, vocabulary, calibration
        self.parameters = model.flops_per_token(0, vocabulary) / 6
        self.achieved = achieved
        """FLOPs a second of one process that `pretrain` reached here; none where it was never measured."""
        self.text: float | None = None
        """Bytes of text that the stage at hand takes; none where nobody knows."""
        self.tokens: float | None = None
        """Tokens of the shards."""
        self.chats = Chats({"train": 0, "dev": 0, "test": 0}, 0, 0)

    def road(self) -> None:
        """Every stage but pretraining, whose figures are the budget's."""
        for record in self.run.stages:
            if record.stage == "dialogues":
                self._dialogues(record)
            elif record.stage in CURATION:
                self._curation(record)
            elif record.stage == "tokenizer":
                self._tokenizer(record)
            elif record.stage == "shard":
                self._shard(record)
            elif record.stage in ALIGNMENT:
                self._alignment(record)

    def flops_rate(self, word: str) -> float:
        """FLOPs a second of a stage that trains by a library's trainer."""
        resources = self.run.resources(word)
        if on_gpu(resources):
            return (self.achieved or rates.H100_FLOPS * rates.GPU_SHARE) * rates.GPU_TRAINER_SHARE / rates.GPU_SHARE
        return self.achieved or rates.CPU_FLOPS * resources.threads

    # ---- documents ----------------------------------------------------------------------------------------------

    def _dialogues(self, record: StageRecord) -> None:
        config = DialoguesConfig.model_validate(self.run.config.get("dialogues", {}))
        made = record.manifest
        if made is not None:
            self.chats = Chats.of(made.counts)
        if made is not None and record.state != "run":
            return
        amount = self._sources("sources-chat", config.sources)
        conversations, kept = 0.0, 0.0
        for source, some in zip(config.sources, amount or [], strict=False):
            number = some.raw / rates.CONVERSATION_BYTES
            number = min(number, source.limit or number)
            conversations += number
            kept += number * rates.CONVERSATION_BYTES
        if made is None:
            self.chats = Chats.expected(config, int(conversations), int(kept))
        raw = sum(some.raw for some in amount or [])
        tasks = sum(self.chats.tasks.values())
        if amount is not None:
            seconds = rates.DIALOGUES.start + raw / rates.DIALOGUES.speed
            self._attach(record, seconds, kept * rates.DIALOGUES.written + tasks * rates.EXERCISE_BYTES)

    def _curation(self, record: StageRecord) -> None:
        made, text = record.manifest, self.text
        if record.stage == "extract" and (made is None or record.state == "run"):
            amounts = self._sources("sources-web", _sources_of(self.run.config.get("extract", {})))
            taken = None if amounts is None else sum(some.raw for some in amounts)
            text = None if amounts is None else sum(some.text for some in amounts)
        else:
            taken = text
        rate = self.calibration.curation.get(record.stage) or CURATION[record.stage]
        if made is not None:
            # What it kept last time is what it keeps of more; its output is known where it is not made again.
            before, after = made.counts.taken.get("bytes", 0), made.counts.made.get("bytes", 0)
            again = record.state == "run" and taken is not None and before
            scale = (taken or 0) / before if again else 1.0
            self.text = after * scale
            if again:
                self._attach(record, made.seconds * scale, made.size() * scale, "last run")
            return
        if taken is None or text is None:
            self.text = None
            return
        measured = record.stage in self.calibration.curation
        self.text = taken * rate.kept if measured or record.stage != "extract" else text
        seconds = rate.start + taken / rate.speed / self.run.resources(record.stage).workers
        self._attach(record, seconds, self.text * rate.written, "probe" if measured else ASSUMED)

    def _tokenizer(self, record: StageRecord) -> None:
        if record.manifest is not None or self.text is None:
            return
        config = TokenizerConfig.model_validate(self.run.config.get("tokenizer", {}))
        seconds = 2.0 + self.text / rates.READ
        if not config.path:
            seconds += min(config.sample_bytes, self.text) / rates.TRAINER
        self._attach(record, seconds, config.vocab_size * rates.ENTRY_BYTES)

    def _shard(self, record: StageRecord) -> None:
        made = record.manifest
        if made is not None:
            before = made.counts.taken.get("bytes", 0)
            scale = self.text / before if record.state == "run" and self.text is not None and before else 1.0
            self.tokens = made.counts.made.get("tokens", 0) * scale
            if scale != 1.0:
                self._attach(record, made.seconds * scale, made.size() * scale, "last run")
        elif self.text is not None:
            self.tokens = self.text / rates.BYTES_PER_TOKEN
            seconds = 1.2 + self.tokens / rates.TOKENISE / self.run.resources("shard").workers
            size = self.tokens * Index(self.vocabulary, 0, "", (), ()).dtype.itemsize
            self._attach(record, seconds, 1.05 * size)
            record.figures["work_bytes"] = int(size)  # sorted runs of tokens, until they are merged
        if self.tokens is not None:
            record.figures["tokens"] = int(self.tokens)

    # ---- models -------------------------------------------------------------------------------------------------

    def _alignment(self, record: StageRecord) -> None:
        length = self.run.config.get("instruct", {}).get("seq_len", 4096) if record.stage == "instruct" else 512
        forward = self.model.flops_per_token(length, self.vocabulary) / 3
        road = self.run.config
        work = work_of(record.stage, road.get(record.stage, {}), road, self.chats, forward)
        rate = self.flops_rate(record.stage)
        seconds, whence = work.seconds(rate, self.model.layers), ASSUMED
        made = record.manifest
        if made is not None:
            then = work_of(record.stage, made.config, road, self.chats, forward).seconds(rate, self.model.layers)
            seconds, whence = made.seconds * seconds / then, "last run"
        weights = 0 if record.stage in ("pairs", "evaluate") else 4 * self.parameters
        self._attach(record, seconds, made.size() if made else weights + 100_000, whence)
        record.figures |= {"tokens": work.tokens, "flops": work.flops}
        if on_gpu(self.run.resources(record.stage)):
            record.figures["gpu_hours"] = record.figures["seconds"] / 3600

    def _attach(self, record: StageRecord, seconds: float, size: float, whence: str = ASSUMED) -> None:
        record.figures |= {"seconds": round(seconds, 1), "seconds_from": whence, "bytes": int(size)}

    def _sources(self, name: str, sources: Sequence[Source]) -> list[Amount] | None:
        """What is to be read of each source; none where one of them is not here and says nothing of its size."""
        listed = self.run.listed.get(name)
        found = [_guess(source) for source in sources] if listed is None else list(_measured(sources, listed))
        known = [amount for amount in found if amount is not None]
        return known if len(known) == len(found) else None


def on_gpu(resources: Resources) -> bool:
    """Whether a stage will compute on a GPU, told without loading torch."""
    driver = Path("/proc/driver/nvidia/version").exists()
    return resources.device == "cuda" or (resources.device == "auto" and driver)


def _sources_of(section: Mapping[str, Any]) -> list[Source]:
    return [Source.model_validate(source) for source in section.get("sources", [])]


def _measured(sources: Sequence[Source], listed: Sequence[Artifact]) -> Iterator[Amount | None]:
    """By the sizes of the files; a server may not have told them."""
    try:
        shares = fractions(sources, listed)
    except ConfigError:
        shares = [source.fraction for source in sources]
    for source, artifact, share in zip(sources, listed, shares, strict=True):
        raw = share * sum(
            file.size * next((times for end, times in rates.EXPANSION.items() if file.path.endswith(end)), 1.0)
            for file in artifact.part("files").files
        )
        # A fetched source holds no more than its limit; of another one's files only so many records are read.
        most = None if source.fetched else _most(source)
        yield _amount(source, min(raw, most or raw)) if raw else None


def _guess(source: Source) -> Amount | None:
    """Of a source that is not here yet: by its limit, if it has one."""
    most = _most(source)
    return None if most is None else _amount(source, most * source.fraction)


def _most(source: Source) -> float | None:
    chats = source.kind == "chat-packages"
    return source.limit and source.limit * (rates.CONVERSATION_BYTES if chats else rates.PAGE_BYTES)


def _amount(source: Source, raw: float) -> Amount:
    pages = source.kind in ("warc", "html", "web-packages")
    return Amount(raw, raw * (CURATION["extract"].kept if pages else rates.ROWS_KEPT))
