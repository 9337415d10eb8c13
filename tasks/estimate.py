"""What each stage of a plan will take: from its last run here where there was one, else from measured rates."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from tasks.artifact import Manifest
from tasks.rates import CURATION, Rate
from tasks.run import Run, StageRecord
from tasks.why import previous
from training.architecture import ModelConfig

COPIED = 2e8  # bytes a second of a model that is read, hashed and written
ASSUMED = "measured rates (tasks/rates.py)"
SPREAD = {"pretrain", "instruct", "reward", "prefer", "reinforce"}
"""Stages that train on `run.resources.ranks` processes."""


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
    limited: float
    """Raw bytes that its limit leaves: a fetched source of conversations holds more."""


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
        self.sections_before = dict(run.config)
        """The sections, that of `pairs` as it was when the stages after it were last made."""
        self.chats = self.chats_before = Chats({"train": 0, "dev": 0, "test": 0}, 0, 0)
        """What `dialogues` will make, and what it made when the stages after it were last made."""

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
            elif record.stage == "base":
                made, size = self._last(record), 4 * self.parameters
                self._attach(record, made.seconds if made else 5 + size / COPIED, made.size() if made else size)
            elif record.stage in ALIGNMENT:
                self._alignment(record)

    def flops_rate(self, word: str) -> float:
        """FLOPs a second of a stage that trains by a library's trainer."""
        resources = self.run.resources(word)
        if on_gpu(resources):
            one = (self.achieved or rates.H100_FLOPS * rates.GPU_SHARE) * rates.GPU_TRAINER_SHARE / rates.GPU_SHARE
            return one * gpus_of(word, resources)
        return self.achieved or rates.CPU_FLOPS * resources.threads

    # ---- documents ----------------------------------------------------------------------------------------------

    def _dialogues(self, record: StageRecord) -> None:
        config = DialoguesConfig.model_validate(self.run.config.get("dialogues", {}))
        made, amount = self._last(record), self._sources("sources-chat", config.sources)
        number = sum(some.limited for some in amount or []) / rates.CONVERSATION_BYTES
        self.chats = Chats.expected(config, int(number), int(number * rates.CONVERSATION_BYTES))
        if made is not None:
            self.chats_before = Chats.of(made.counts)
            same = record.state != "run"
            self.chats = self.chats_before if same else replace(self.chats_before, tasks=self.chats.tasks)
        self.chats_before = self.chats if made is None else self.chats_before
        if amount is not None and record.state == "run":
            seconds = rates.DIALOGUES.start + sum(some.raw for some in amount) / rates.DIALOGUES.speed
            size = self.chats.bytes * rates.DIALOGUES.written + sum(self.chats.tasks.values()) * rates.EXERCISE_BYTES
            self._attach(record, seconds, size)

    def _curation(self, record: StageRecord) -> None:
        made, taken, text = self._last(record), self.text, self.text
        if record.stage == "extract" and (made is None or record.state == "run"):
            amounts = self._sources("sources-web", _sources_of(self.run.config.get("extract", {})))
            taken = None if amounts is None else sum(some.raw for some in amounts)
            text = None if amounts is None else sum(some.text for some in amounts)
        if made is not None:
            # What it kept last time is what it keeps of more; its output is known where it is not made again.
            self.text = made.counts.made.get("bytes", 0) * self._again(record, made, taken)
            return
        if taken is None or text is None:
            self.text = None
            return
        rate = self.calibration.curation.get(record.stage) or CURATION[record.stage]
        measured = record.stage in self.calibration.curation
        self.text = taken * rate.kept if measured or record.stage != "extract" else text
        seconds = rate.start + taken / rate.speed / self.run.resources(record.stage).workers
        self._attach(record, seconds, self.text * rate.written, "probe" if measured else ASSUMED)

    def _tokenizer(self, record: StageRecord) -> None:
        made = self._last(record)
        if made is not None:
            self._again(record, made, None)
        elif self.text is not None:
            config = TokenizerConfig.model_validate(self.run.config.get("tokenizer", {}))
            seconds = 2.0 + self.text / rates.READ
            if not config.path:
                seconds += min(config.sample_bytes, self.text) / rates.TRAINER
            self._attach(record, seconds, config.vocab_size * rates.ENTRY_BYTES)

    def _shard(self, record: StageRecord) -> None:
        made = self._last(record)
        if made is not None:
            self.tokens = made.counts.made.get("tokens", 0) * self._again(record, made, self.text)
        elif self.text is not None:
            self.tokens = self.text / rates.BYTES_PER_TOKEN
            seconds = 1.2 + self.tokens / rates.TOKENISE / self.run.resources("shard").workers
            size = self.tokens * Index(self.vocabulary, 0, "", (), ()).dtype.itemsize
            self._attach(record, seconds, 1.05 * size)
            record.figures["work_bytes"] = int(size)  # sorted runs of tokens, until they are merged
        if self.tokens is not None:
            record.figures["tokens"] = int(self.tokens)

    def _again(self, record: StageRecord, made: Manifest, taken: float | None) -> float:
        """How many times the bytes of last time a stage takes now; it is expected to take as many times as long."""
        before = made.counts.taken.get("bytes", 0)
        scale = taken / before if record.state == "run" and taken is not None and before else 1.0
        if record.state == "run":
            self._attach(record, made.seconds * scale, made.size() * scale, "last run")
        return scale

    def _last(self, record: StageRecord) -> Manifest | None:
        """Of the artifact itself, or of what the newest run of this preset had in its place."""
        return record.manifest or previous(self.run, record.stage, record.name)

    # ---- models -------------------------------------------------------------------------------------------------

    def _alignment(self, record: StageRecord) -> None:
        road = self.run.config
        length = 512
        if record.stage == "instruct":
            phases = road.get("pretrain", {}).get("phases", [])
            length = road.get("instruct", {}).get("seq_len") or (phases[-1]["seq_len"] if phases else 4096)
        forward = self.model.flops_per_token(length, self.vocabulary) / 3
        work = work_of(record.stage, road.get(record.stage, {}), road, self.chats, forward)
        rate = self.flops_rate(record.stage)
        seconds, whence = work.seconds(rate, self.model.layers), ASSUMED
        made = self._last(record)
        if made is not None:
            if record.stage == "pairs":
                self.sections_before["pairs"] = made.config
            before = work_of(record.stage, made.config, self.sections_before, self.chats_before, forward)
            then = before.seconds(rate, self.model.layers)
            seconds, whence = made.seconds * seconds / then, "last run"
        weights = 0 if record.stage in ("pairs", "evaluate") else 4 * self.parameters
        self._attach(record, seconds, made.size() if made else weights + 100_000, whence)
        record.figures |= {"flops": work.flops} | ({"tokens": work.tokens} if work.tokens else {})
        if on_gpu(resources := self.run.resources(record.stage)):
            record.figures["gpu_hours"] = record.figures["seconds"] / 3600 * gpus_of(record.stage, resources)

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


def gpus_of(word: str, resources: Resources) -> int:
    """GPUs of one machine that a stage trains on."""
    return max(1, resources.ranks // resources.nodes) if word in SPREAD else 1


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
    kept = CURATION["extract"].kept if pages else rates.ROWS_KEPT
    return Amount(raw, raw * kept, min(raw, _most(source) or raw))
