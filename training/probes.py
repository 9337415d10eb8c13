"""After a phase: does it use its new context, does it find a needle, has it forgotten short text?"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from data_curation.counts import Counts
from data_curation.place import Place
from data_curation.shards import Document, Shards, heldout_documents
from training import model as models
from training import needles
from training.decoder import Decoder
from training.gates import gates_of
from training.heldout import buckets_of, ratio
from training.launch import ALIVE
from training.measures import mean
from training.passes import decoder_for
from training.pretrain import PhaseRun
from training.reading import Reader
from training.step import Inputs, Trainer

Window = tuple[str, np.ndarray]
"""A document's id and some of its tokens."""


def after_phase(trainer: Trainer, inputs: Inputs) -> Counts:
    """What `probe` finds in a trained model, which is whole again; nothing where there are no held-out documents."""
    run, place = trainer.run, trainer.place
    if inputs.heldout is None or not run.probes.tokens:
        return Counts()
    decoder = decoder_for(run, trainer.model.eval(), trainer.device, "none")
    alive = (place.scratch / ALIVE).touch
    reader = Reader(decoder, run.phase.seq_len, trainer.ranks, trainer.device, alive)

    def before() -> Decoder:
        assert inputs.model is not None
        trainer.model.to("cpu")  # a GPU may not hold both
        return decoder_for(run, models.load(inputs.model).to(trainer.device).eval(), trainer.device, "none")

    return probe(run, place, reader, before if inputs.model else None, inputs.heldout, trainer.tokenizer)


def probe(
    run: PhaseRun, place: Place, reader: Reader, before: Callable[[], Decoder] | None, heldout: Path, tokenizer: Any
) -> Counts:
    """Metrics, gates and plots of a finished phase; `before` makes a decoder of the model that the phase began with."""
    config, counts = run.probes, Counts()
    Shards(heldout).check_tokenizer(Path(tokenizer.name_or_path))
    documents = list(heldout_documents(heldout))
    long = _long(documents, reader.width, config.tokens)
    if long:
        losses, known = reader.read([window for _, window in long])[0], _known(run)
        counts.metrics |= _by_position(long, losses) | {"context_gain": _context_gain(reader, long, losses, known)}
    else:
        counts.warnings.append(
            f"{place.name}: no held-out document has {reader.width} tokens: whether its context is used is not "
            "measured; raise shard.heldout_tokens"
        )
    if config.needles:
        counts.metrics |= _needles(reader, documents, tokenizer, config.needles)
    short = _short(documents, run.lengths[0][0], config.tokens)
    if short:
        counts.metrics |= _short_text(reader, before, short, models.bytes_of_tokens(Path(tokenizer.name_or_path)))
    counts.gates = gates_of(config, counts.metrics)
    if reader.ranks.rank == 0:
        _plot(place, run, counts.metrics)
    return counts


def _known(run: PhaseRun) -> int:
    """The context that was there before this phase; in the first one half of what there is now."""
    return run.lengths[-2][0] if run.index else run.phase.seq_len // 2


def _long(documents: Sequence[Document], width: int, limit: int) -> list[Window]:
    """Windows that predict `width` tokens each, with their documents' ids, none overlapping another."""
    found: list[Window] = []
    for document in documents:
        for start in range(0, len(document.tokens) - width, width):
            if (len(found) + 1) * width > max(limit, width):
                return found
            found.append((document.id, document.tokens[start : start + width + 1].astype(np.int64)))
    return found if limit else []


def _short(documents: Sequence[Document], longest: int, limit: int) -> list[np.ndarray]:
    """Whole documents of the first phase's length at most."""
    found: list[np.ndarray] = []
    for document in documents:
        if 2 <= len(document.tokens) <= longest and limit > 0:
            found.append(document.tokens.astype(np.int64))
            limit -= len(document.tokens)
    return found


def _by_position(windows: Sequence[Window], losses: list[np.ndarray]) -> dict[str, dict[str, Any]]:
    """Nats per token by position; the error is that between documents."""
    found: dict[str, dict[str, Any]] = {}
    width = len(losses[0])
    for bucket in buckets_of(width):
        cut = slice(bucket.start, min(bucket.stop, width))
        sums = _by_document(windows, [float(loss[cut].sum()) for loss in losses])
        sizes = _by_document(windows, [float(len(loss[cut])) for loss in losses])
        measured = ratio(sums, sizes) | {"n": int(sum(sizes))}
        found[f"loss/position/{cut.start}-{cut.stop - 1}"] = measured
    return found


def _context_gain(reader: Reader, windows: Sequence[Window], losses: list[np.ndarray], known: int) -> dict[str, Any]:
    """Nats per token that the last tokens of a window cost more when only `known` tokens stand before its end.

    Each token is compared with itself, so differences between early and late text do not count; n counts documents.
    """
    cut, _ = reader.read([window[-known - 1 :] for _, window in windows])
    last = known // 2
    gains = [float((less[-last:] - full[-last:]).sum()) for full, less in zip(losses, cut, strict=True)]
    return ratio(_by_document(windows, gains), _by_document(windows, [float(last)] * len(windows)))


def _by_document(windows: Sequence[Window], values: Sequence[float]) -> list[float]:
    sums: dict[str, float] = {}
    for (name, _), value in zip(windows, values, strict=True):
        sums[name] = sums.get(name, 0.0) + value
    return list(sums.values())


def _needles(reader: Reader, documents: Sequence[Document], tokenizer: Any, number: int) -> dict[str, dict[str, Any]]:
    """Needles in contexts as long as the phase's, overall and by depth."""
    planted = needles.plant(documents, tokenizer, number, reader.width)
    if not planted:
        return {}
    read = zip(planted, *reader.read([needle.tokens for needle in planted]), strict=True)
    right, gains = zip(*(needles.found(needle, loss, hit) for needle, loss, hit in read), strict=True)
    found = {"needle_accuracy": mean(right), "needle_gain": mean(gains)}
    for at, depth in enumerate(needles.DEPTHS):
        found[f"needle_accuracy/depth/{depth:.0%}"] = mean(right[at :: len(needles.DEPTHS)])
    return found


def _short_text(
    reader: Reader, before: Callable[[], Decoder] | None, short: list[np.ndarray], sizes: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Bits per byte of short documents, and their rise against the model that the phase began with."""
    bits = [_bits(reader, short, sizes)]
    read = [float(sizes[document[1:]].sum()) for document in short]
    found = {"short_bits_per_byte": ratio(bits[0], read)}
    if before is not None:
        bits.append(_bits(replace(reader, decoder=before()), short, sizes))
        rises = [after - earlier for after, earlier in zip(*bits, strict=True)]
        found["short_rise"] = ratio(rises, read)
    return found


def _bits(reader: Reader, documents: list[np.ndarray], sizes: np.ndarray) -> list[float]:
    """Bits that each document's text costs; control tokens stand for no bytes and do not count."""
    losses, _ = reader.read(documents)
    pairs = zip(losses, documents, strict=True)
    return [float(loss[sizes[document[1:]] > 0].sum()) / math.log(2) for loss, document in pairs]


def _plot(place: Place, run: PhaseRun, metrics: dict[str, dict[str, Any]]) -> None:
    title = f"after the phase of {run.phase.seq_len} tokens"
    positions = [(name.rsplit("/", 1)[1], row["value"]) for name, row in metrics.items() if "/position/" in name]
    if positions:
        points = [(float(name.split("-")[0]), value) for name, value in positions]
        place.plot("loss-by-position", f"Held-out loss by position {title}", "position", "nats per token",
                   {"loss": points})  # fmt: skip
    depths = [(name.rsplit("/", 1)[1], row["value"]) for name, row in metrics.items() if "/depth/" in name]
    if depths:
        points: Any = [(depth, value) for depth, value in depths if value is not None]
        place.plot("needle", f"Needles found {title}", "depth", "share", {"found": points}, kind="bar")
